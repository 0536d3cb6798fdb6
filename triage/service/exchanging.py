"""Packages of scans for another administration: what goes in by policy, what is left out, and what came of it there.

Per scan a JSON (result, declaration, decision, chain of custody) and either its recording or its pictures. Where the
policy leaves parties or people out, the recording is written anew without them: its counts are the same, its bytes are
not, and the package says so, with the hash of the one that stays here. As a last check no name that was to be left out
may stand anywhere in what goes out; a package in which one does is not made.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import msgspec

from scanner_io import __version__, exchange, recording
from scanner_io.errors import ConfigError, DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.formats.raster import RasterOptions
from scanner_io.model import Decision, Declaration, Radiograph, Scan, TriageResult
from scanner_io.security import Identity
from triage.analysis.image_profile import ImageProfile
from triage.analysis.recognised import Here, Received
from triage.analysis.same_image import Compared, compared

from .outbox import Item, Outbox

PARTIES = ("consignor", "consignee")
EXAMPLE = """format = "scanlane exchange policy 1"
# what of a declaration goes out; parties only where `parties` says so
declaration = [
    "container_numbers", "hs_codes", "goods", "declared_empty", "gross_weight_kg", "seals", "origin", "route",
]
parties = "none"      # none, or full: consignor and consignee by name
people = "none"       # none, or full: names of analysts, their notes and the texts of the audit
form = "recording"    # recording, or pictures: one 16-bit PNG an energy
valid_days = 90
"""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes out."""

    format: Literal["scanlane exchange policy 1"]
    declaration: tuple[str, ...]
    parties: Literal["none", "full"]
    people: Literal["none", "full"]
    form: Literal["recording", "pictures"]
    valid_days: float


class Custody(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a scan's way: an event of the audit. who, text : empty where people are left out"""

    seq: int
    utc_ns: int
    kind: str
    who: str = ""
    text: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a package says of one scan.

    original_sha256, original_size : of the recording as the lane wrote it
    rewritten : the recording in the package was written anew, and what was left out of it
    result, declaration : with what later assessments added, and the newest papers
    first_outcome, first_declaration : of when it was judged; the recording has that result
    audit_seq, audit_hash : how far the sender's audit had come
    """

    scan_id: str
    lane: str
    start_utc_ns: int
    simulated: bool
    form: str
    file: tuple[str, ...]
    original_sha256: str
    original_size: int
    rewritten: tuple[str, ...]
    result: TriageResult
    first_outcome: str = ""
    declaration: Declaration | None
    first_declaration: Declaration | None = None
    left_out: tuple[str, ...]
    decisions: tuple[Decision, ...]
    custody: tuple[Custody, ...]
    audit_seq: int
    audit_hash: str


def policy_in(path: Path) -> Policy:
    """Read a policy. Raises ConfigError."""
    try:
        read = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Policy)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError([f"{path}: {error}; `scanlane exchange policy` prints one"]) from error
    unknown = sorted(set(read.declaration) - set(Declaration.__struct_fields__))
    if unknown:
        raise ConfigError([f"{path}: declaration has no {', '.join(unknown)}; it has "
                           f"{', '.join(Declaration.__struct_fields__)}"])  # fmt: skip
    named = sorted(set(read.declaration) & set(PARTIES))
    if named and read.parties == "none":
        raise ConfigError([f'{path}: declaration lists {", ".join(named)}, and parties = "none"; say one of both'])
    if not 0 < read.valid_days <= 3660:
        raise ConfigError([f"{path}: valid_days {read.valid_days:g}, expected above 0 and up to 3660"])
    return read


def pack(
    outbox: Outbox, scan_ids: Sequence[str], policy: Policy, identity: Identity, recipient: str, readers: ForeignFiles,
    progress: Callable[[], None] = lambda: None,
) -> bytes:  # fmt: skip
    """Return a signed package, and note it in the audit. Raises DataError, DeliveryError; nothing goes out then."""
    files: dict[str, bytes] = {}
    simulated = False
    for number, scan_id in enumerate(scan_ids, 1):
        item = outbox.item(scan_id)
        simulated |= item.row.simulated
        files |= _scan_files(outbox, item, f"{number:03d}", policy, readers)
        progress()
    data = exchange.pack(
        files, identity, recipient=recipient, scans=tuple(scan_ids), now_utc_ns=time.time_ns(),
        valid_days=policy.valid_days, simulated=simulated, software=f"scanlane {__version__}",
    )  # fmt: skip
    digest = hashlib.sha256(data).hexdigest()
    with outbox.store.transaction():
        for scan_id in scan_ids:
            outbox.event("exchange_packed", scan_id, identity.name, f"for {recipient}, package sha256 {digest}")
    return data


def _scan_files(outbox: Outbox, item: Item, name: str, policy: Policy, readers: ForeignFiles) -> dict[str, bytes]:
    row = item.row
    data = _original(item)
    scan = readers.recording_of(data, row.path).scan
    declaration, left_out = _subset(row.papers, policy)
    first, _ = _subset(row.declaration, policy)
    rewritten: tuple[str, ...] = ()
    files: dict[str, bytes] = {}
    result = row.result
    decisions = tuple(_person_out(d, policy) for d, applied in outbox.decisions(row.scan_id) if applied)
    if policy.form == "pictures":
        files |= _pictures(scan.radiograph, name)
    elif policy.parties == "full" and policy.people == "full" and not left_out:
        files[f"{name}{recording.SUFFIX}"] = data
    else:
        data, rewritten = _without(scan, result, declaration)
        files[f"{name}{recording.SUFFIX}"] = data
    seq, head = outbox.audit_head()
    told = Told(
        scan_id=row.scan_id, lane=row.lane, start_utc_ns=row.start_utc_ns, simulated=row.simulated, form=policy.form,
        file=tuple(files), original_sha256=row.sha256, original_size=row.size, rewritten=rewritten, result=row.told,
        first_outcome=row.result.outcome, declaration=declaration, first_declaration=first,
        left_out=left_out, decisions=decisions, audit_seq=seq, audit_hash=head.hex(),
        custody=tuple(_custody(outbox, row.scan_id, policy)),
    )  # fmt: skip
    made = {f"{name}.scan.json": msgspec.json.format(msgspec.json.encode(told), indent=1), **files}
    _check_left_out((row.declaration, row.papers), [d for d, _ in outbox.decisions(row.scan_id)], scan, policy, made)
    return made


def _original(item: Item) -> bytes:
    """Return the bytes of a recording, which are those that were hashed when it was entered. Raises DataError."""
    row = item.row
    try:
        data = Path(row.path).read_bytes()
    except OSError as error:
        raise DataError(f"scan {row.scan_id}: its recording cannot be read ({error.strerror}): {row.path}") from error
    seen = hashlib.sha256(data).hexdigest()
    if seen != row.sha256:
        raise DataError(f"scan {row.scan_id}: its recording hashes to {seen[:16]}…, entered as {row.sha256[:16]}…; "
                        "it is not handed on")  # fmt: skip
    return data


def _subset(declaration: Declaration | None, policy: Policy) -> tuple[Declaration | None, tuple[str, ...]]:
    """Return what goes out of a declaration, and the names of the fields that had something and do not."""
    if declaration is None:
        return None, ()
    kept = {*policy.declaration, "simulated", *(PARTIES if policy.parties == "full" else ())}
    empty = Declaration()
    gone = tuple(
        f for f in Declaration.__struct_fields__ if f not in kept and getattr(declaration, f) != getattr(empty, f)
    )
    return msgspec.structs.replace(declaration, **{f: getattr(empty, f) for f in gone}), gone


def _person_out(decision: Decision, policy: Policy) -> Decision:
    if policy.people == "full":
        return decision
    return msgspec.structs.replace(decision, analyst="", note="", lease_id="")


def _custody(outbox: Outbox, scan_id: str, policy: Policy) -> list[Custody]:
    rows = outbox.store.rows(
        "SELECT seq, utc_ns, kind, who, text FROM events WHERE scan_id=? ORDER BY seq", (scan_id,)
    )  # fmt: skip
    if policy.people == "full":
        return [Custody(seq=s, utc_ns=t, kind=k, who=w, text=x) for s, t, k, w, x in rows]
    return [Custody(seq=s, utc_ns=t, kind=k) for s, t, k, _, _ in rows]


def _without(scan: Scan, result: TriageResult, declaration: Declaration | None) -> tuple[bytes, tuple[str, ...]]:
    """Return a recording of the same counts without what names people, and what is not in it, in words."""
    bare = msgspec.structs.replace(
        scan, declaration=declaration, sidecar=None, attachments=(), lane_events=(), source="", source_sha256="",
        declaration_match=None,
    )  # fmt: skip
    words = ["declaration as the policy allows", "configuration", "source"]
    for field, told in (("sidecar", "the scanner's own record"), ("attachments", "attached files"),
                        ("lane_events", "plates and other events of the lane"),
                        ("declaration_match", "how the declaration was found")):  # fmt: skip
        if getattr(scan, field):
            words.append(told)
    return recording.build(bare, config={}, result=result), tuple(words)


def _pictures(radiograph: Radiograph | None, name: str) -> dict[str, bytes]:
    found = {}
    if radiograph is None:
        return {}
    for energy, counts in zip(radiograph.detector.energies, radiograph.counts, strict=True):
        done, png = cv2.imencode(".png", recording.upright(counts, radiograph.detector.first_channel))
        if not done:
            raise DataError(f"{name}: the picture of energy {energy} could not be encoded as PNG")
        found[f"{name}-{''.join(c if c.isalnum() else '-' for c in energy)}-16bit.png"] = png.tobytes()
    return found


def _check_left_out(
    declared: Sequence[Declaration | None], decisions: list[Decision], scan: Scan, policy: Policy,
    files: dict[str, bytes],
) -> None:  # fmt: skip
    """Raise DataError where a name that was to be left out stands in what would go out."""
    names: list[str] = []
    for papers in (*declared, scan.declaration):
        if papers is not None and policy.parties == "none":
            names += [papers.consignor, papers.consignee]
    if policy.people == "none":
        names += [d.analyst for d in decisions]
    for name in {n for n in names if len(n) > 3}:
        for file, data in files.items():
            if not file.endswith(".png") and name.encode() in data:
                raise DataError(f"{file}: a name that the policy leaves out stands in it still; nothing was packed")


# --------------------------------------------------------------------------------------------------------------
# At the other end


def told_in(opened: exchange.Opened, readers: ForeignFiles) -> list[Told]:
    """Return what a verified package says of its scans; every recording in it is read and held against it.

    Raises Refused where they do not fit: a sender that signs nonsense is not believed.
    """
    found = []
    for name, data in opened.files.items():
        if not name.endswith(".scan.json"):
            continue
        try:
            told = msgspec.json.decode(data, type=Told)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise exchange.Refused(f"{name}: cannot be read ({error})") from error
        for file in told.file:
            if file not in opened.files:
                raise exchange.Refused(f"{name}: tells of {file}, which is not in the package")
            if file.endswith(recording.SUFFIX):
                scan = readers.recording_of(opened.files[file], file).scan
                if scan.scan_id != told.scan_id:
                    raise exchange.Refused(f"{file}: is of {scan.scan_id}, {name} is of {told.scan_id}")
        found.append(told)
    if sorted(t.scan_id for t in found) != sorted(opened.header.scans):
        raise exchange.Refused("the scans in it are not those that its header names")
    return found


def image_in(told: Told, opened: exchange.Opened, readers: ForeignFiles) -> Radiograph | None:
    """Return the image of a scan in a package: of its recording, or of the picture of its last energy.

    None where it has neither. Raises DataError where it cannot be read.
    """
    for name in reversed(told.file):
        if name.endswith(recording.SUFFIX):
            return readers.recording_of(opened.files[name], name).scan.radiograph
        if name.endswith(".png"):
            return readers.raster(
                opened.files[name], name=name, start_utc_ns=told.start_utc_ns, start_how="by the package",
                options=RasterOptions(polarity="air_bright"),  # counts as they are
            )[0]  # fmt: skip
    return None


def here_of(item: Item, told: Told, opened: exchange.Opened, score: float | None, readers: ForeignFiles) -> Here:
    """Return what is known of a passage here, its image held against that of a scan in a package.

    Its papers are the newest, and its result has what later assessments add. Raises DataError where its recording
    cannot be read, or is not as it was entered.
    """
    row = item.row
    papers = row.papers
    mine = readers.recording_of(_original(item), row.path).scan.radiograph
    image = None
    if mine is not None:
        try:
            theirs = image_in(told, opened, readers)
        except DataError as error:
            image = Compared(same=None, words=f"the received image cannot be read: {error}")
        else:
            image = compared(theirs, mine, ImageProfile(), one_scan=told.scan_id == row.scan_id)
    return Here(
        utc_ns=row.start_utc_ns, container_numbers=papers.container_numbers if papers else (),
        seals=papers.seals if papers else (), result=row.told, image=image, risk_score=score,
    )  # fmt: skip


def received(told: Told, sender: str) -> Received:
    """Return a scan of a package as it stands for recognition."""
    papers = told.declaration
    return Received(
        scan_id=told.scan_id, sender=sender, start_utc_ns=told.start_utc_ns, outcome=told.result.outcome,
        verdict=told.decisions[-1].verdict if told.decisions else "",
        container_numbers=papers.container_numbers if papers else (), seals=papers.seals if papers else (),
    )  # fmt: skip


def summary(told: Told) -> dict[str, Any]:
    """Return what scripts and people read of one scan."""
    return {
        "scan": told.scan_id, "lane": told.lane, "outcome": told.result.outcome,
        "first_outcome": told.first_outcome or told.result.outcome, "simulated": told.simulated,
        "verdict": told.decisions[-1].verdict if told.decisions else None,
        "containers": list(told.declaration.container_numbers) if told.declaration else [],
        "left_out": list(told.left_out), "rewritten": list(told.rewritten), "files": list(told.file),
        "original_sha256": told.original_sha256, "custody": len(told.custody),
    }  # fmt: skip
