"""The files of one passage: which of those that a sidecar lists are there, what is missing, and several images as one.

For the watched folder and for files judged by hand. No I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import takewhile

import msgspec
import numpy as np

from ..errors import DataError
from ..model import DetectorState, Quality, Radiograph
from ..vendor_record import Attachment, Resource, Role, Sidecar
from .sidecar import role_of_name

KEPT_BYTES = 1 << 20
"""An attachment of counts up to this size becomes part of the record; of a larger one, size and hash."""
MOST_NAMED = 8
"""Missing files named one by one in a reason."""


class Names:
    """Names of the files in a folder, found whatever their capitals, for shares change those."""

    def __init__(self, names: Iterable[str]) -> None:
        self.folded = {name.casefold(): name for name in names}
        self._ordered = sorted(self.folded)

    def of(self, beginning: str, stem: str) -> Iterator[str]:
        """Yield the names that begin with `beginning`, but for those of another passage whose name begins likewise.

        Scan 10 is not of scan 1, and what begins with the longer name of another sidecar is that one's.

        stem : of the name of the sidecar whose files are looked for
        """
        small, own = beginning.casefold(), stem.casefold()
        alike = list(takewhile(lambda n: n.startswith(small), self._ordered[bisect_left(self._ordered, small) :]))
        sheets = [n.removesuffix(".xml") for n in alike if n.endswith(".xml") and role_of_name(n) == "unknown"]
        others = tuple(s for s in sheets if not own.startswith(s))
        for folded in alike:
            counts_on = small[-1:].isdigit() and folded[len(small) :][:1].isdigit()
            if not folded.startswith(others) and not counts_on:
                yield self.folded[folded]


def there_and_missing(
    told: Sidecar, names: Names, needed: Collection[Role] = (), *, stem: str
) -> tuple[dict[str, Resource], list[Resource]]:
    """Return which of the files in a folder are this passage's, and which of them it still lacks.

    names : of the files that are there
    needed : roles without which a passage is not complete; none: all files that the sidecar does not call deleted
    stem : of the sidecar's own name; where it lists nothing, files that begin with it or with the scan's number count
    """
    there: dict[str, Resource] = {}
    missing: list[Resource] = []
    for listed in told.resources:
        name = names.folded.get(listed.name.casefold())
        if name is not None:
            there[name] = listed
        elif not listed.deleted and (not needed or listed.role in needed):
            missing.append(listed)
    if not told.resources:
        for name in {n for beginning in (told.scan_id, stem) if beginning for n in names.of(beginning, stem)}:
            role = role_of_name(name)
            if role != "unknown":
                there[name] = Resource(name=name, role=role)
    have = {listed.role for listed in (*told.listed(), *there.values())}
    wanted = told.awaited or ("radiograph",)
    missing += [
        Resource(name=f"({role}, not listed yet)", role=role)
        for role in wanted
        if role not in have and (not needed or role in needed or role == "radiograph")
    ]
    return there, missing


def choose_images(
    there: Mapping[str, Resource], sizes: Mapping[str, int], energies: Mapping[str, str]
) -> dict[str, str]:
    """Return the names of the files to decode, by energy ("" for the only one).

    energies : name -> glob, low before high. Of images that fit none the largest file is taken: the others are the same
        picture made smaller or worked over
    """
    images = [name for name, listed in there.items() if listed.role == "radiograph"]
    found: dict[str, str] = {}
    for energy, pattern in energies.items():
        fitting = [n for n in images if fnmatchcase(n.casefold(), pattern.casefold())]
        if fitting:
            found[energy] = max(fitting, key=lambda n: (sizes.get(n, 0), n))
    if found or not images:
        return found
    return {"": max(images, key=lambda n: (sizes.get(n, 0), n))}


def join_energies(images: Mapping[str, Radiograph]) -> tuple[Radiograph, tuple[Quality, ...]]:
    """Return images of one passage as one radiograph; one that does not fit the highest is left out and flagged.

    images : by energy, low before high
    """
    names = list(images)
    last = images[names[-1]]
    kept, flags = {}, list[Quality]()
    for energy, image in images.items():
        differs = [
            f"{what} {mine} against {other}"
            for what, mine, other in (
                ("shape", image.counts[0].shape, last.counts[0].shape),
                ("saturation", image.detector.saturation_value, last.detector.saturation_value),
                ("state", image.detector.state, last.detector.state),
            )
            if mine != other
        ]
        if differs:
            reason = f"the image of energy {energy} does not fit that of {names[-1]} ({'; '.join(differs)}): left out"
            flags.append(Quality(code="energies_differ", reason=reason))
        else:
            kept[energy] = image
    detectors = [image.detector for image in kept.values()]
    noted = {flag.code: flag for d in detectors for flag in d.flags}
    detector: DetectorState = msgspec.structs.replace(
        last.detector, energies=tuple(kept) if len(images) > 1 else last.detector.energies,
        dark=tuple(d.dark[0] for d in detectors), air=tuple(d.air[0] for d in detectors),
        bad_channels=np.logical_or.reduce([d.bad_channels for d in detectors]),
        note="; ".join(f"{energy or 'image'}: {i.detector.note}" for energy, i in kept.items()),
        flags=tuple(noted.values()),
    )  # fmt: skip
    joined = Radiograph(
        detector=detector, counts=tuple(i.counts[0] for i in kept.values()), column_utc_ns=last.column_utc_ns
    )
    return joined, tuple(flags)


def attachment(name: str, role: Role, size_bytes: int, sha256: str, contents: bytes = b"") -> Attachment:
    """Return a file of a passage as an attachment; counts of small size are kept whole."""
    kept = contents if role == "portal counts" and len(contents) <= KEPT_BYTES else b""
    return Attachment(name=name, role=role, size_bytes=size_bytes, sha256=sha256, contents=kept)


def names_of(missing: Collection[Resource]) -> str:
    """Return missing files in words."""
    named = [f"{r.name} ({r.role})" if not r.name.startswith("(") else r.name for r in missing]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]) + more


def passage_flags(told: Sidecar, missing: Collection[Resource], waited: str = "") -> tuple[Quality, ...]:
    """Return what limits a passage by its sidecar's own word.

    waited : how long the missing files were waited for, in words
    """
    flags = []
    if missing:
        listed = max(len(told.listed()), len(missing))
        reason = f"{len(missing)} of {listed} files of scan {told.scan_id} are not there{waited}: {names_of(missing)}"
        flags.append(Quality(code="passage_partial", reason=reason))
    start, end = told.beam_start, told.beam_end
    if start and end and start.utc_ns is not None and end.utc_ns is not None and end.utc_ns < start.utc_ns:
        reason = f"the scanner says that the scan began at {start.raw} and ended at {end.raw}, before it began"
        flags.append(Quality(code="scan_ends_before_it_began", reason=reason))
    foreign = [r.name for r in told.listed("radiograph", "preview") if told.scan_id.casefold() not in r.name.casefold()]
    if foreign:
        reason = f"the sidecar of scan {told.scan_id} lists {', '.join(foreign[:3])}, named after another scan"
        flags.append(Quality(code="image_of_another_scan", reason=reason))
    if told.suspicions:
        reason = f"the vendor's system says: {', '.join(told.suspicions)}"
        flags.append(Quality(code="vendor_suspicion", reason=reason))
    odd = [o for o in told.operations if o.verdict == "unknown" and o.verdict_code is not None]
    if odd:
        reason = f"the verdict of {odd[0].kind} is code {odd[0].verdict_code}, whose meaning is not known: no clearance"
        flags.append(Quality(code="vendor_verdict_unknown", reason=reason))
    if told.training:
        flags.append(Quality(code="vendor_training", reason="the scanner calls this a scan for training"))
    return tuple(flags)


def start_utc_ns(told: Sidecar, ahead_s: float = 0.0) -> tuple[int, str] | None:
    """Return when the scan began by its sidecar, and by which of its times; None where none tells.

    ahead_s : seconds by which the scanner's clock is ahead
    """
    for what in ("beam_start", "cargo_start", "created"):
        moment = getattr(told, what)
        if moment is not None and moment.utc_ns is not None and moment.utc_ns > 0:
            return moment.utc_ns - round(ahead_s * 1e9), f"sidecar's {what} {moment.raw}"
    return None


def no_image(told: Sidecar, missing: Collection[Resource], there: Mapping[str, Resource]) -> str:
    """Return why a passage has no image, in words. Raises DataError if it has one."""
    if any(r.role == "radiograph" for r in there.values()):
        raise DataError(f"scan {told.scan_id}: has an image")
    lost = [r for r in missing if r.role == "radiograph"]
    deleted = [r for r in told.resources if r.role == "radiograph" and r.deleted]
    rest = [r for r in missing if r.role != "radiograph"]
    why = f"missing {names_of(lost)}" if lost else "it lists no image"
    if deleted and not lost:
        why = f"the scanner has deleted {names_of(deleted)}"
    preview = "; its preview is there, which is no image to judge" if any(
        r.role == "preview" for r in there.values()) else ""  # fmt: skip
    also = f"; also missing {names_of(rest)}" if rest else ""
    return f"scan {told.scan_id} has no image: {why}{also}{preview}"
