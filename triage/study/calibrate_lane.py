"""`scanlane calibrate ARCHIVE… --out FILE`: learn a lane's own normal from its scans.

Every scan is judged anew, by the code and the thresholds that the profile will be used with; what an older version once
said of it has no part in it. What is left out, and why:

    cannot be read, unusable, no container      says nothing of what is usual
    the portal alarmed                          not known to be innocent
    decided `inspect` with a code of a find     known not to be
    the same counts as another scan             twice is no second example

A scan that an analyst sent for inspection without a find stays in. It was sent because it looks strange; leaving out
the strangest innocent scans would lower every threshold and break the promise. A find that nobody told of stays in as
well and only makes the profile more careful (arXiv 2502.04807).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from scanner_io import __version__, recording
from scanner_io.errors import ConfigError, DataError, ScannerError
from scanner_io.foreign import ForeignFiles
from scanner_io.formats import raster
from scanner_io.lane_profile import Cell, Excluded, Extra, LaneProfile, Stratum
from scanner_io.model import Scan
from triage.analysis import pipeline
from triage.analysis.conformal import least_scans, level_of, strata_of, textures_of
from triage.analysis.drift import why_no_example
from triage.analysis.fuser import Fuser, fuser_named
from triage.analysis.fuser import load as load_fuser
from triage.analysis.goods_profile import GoodsHistory
from triage.analysis.image import Look
from triage.analysis.kinds import KINDS
from triage.analysis.known import Asked
from triage.analysis.maps import Maps
from triage.analysis.normal import LEAST_KNOWN
from triage.analysis.screening import Buffers
from triage.analysis.standing import FUSER, GOODS, SEVERAL
from triage.analysis.unlike import TEXTURE_UNKNOWN
from triage.analysis.vital_signs import VITALS
from triage.service.lane import lane_profile
from triage.service.offline import LANE as OFFLINE
from triage.service.offline import image_scan
from triage.service.outbox import decisions_in
from triage.service.store import found_in as outbox_in
from triage.study.lane_normal import MOST_MAPS, extras_of, learned_fuser, learned_goods

Array: TypeAlias = NDArray[Any]

CONFIDENCE = 0.9
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_CHUNK = 4


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One scan of the archive: what is learned from it, or why nothing is.

    counts_hash : of the raw counts; scores, vital_signs, cell, traits : see ImageJudgement
    unknown : the load is like nothing that was learnt from; front : side of the tractor, empty where none is seen
    """

    file: str
    scan: str = ""
    lane: str = ""
    utc_ns: int = 0
    simulated: bool = False
    counts_hash: str = ""
    cell: Cell = ("", "")
    scores: dict[str, float] = {}
    vital_signs: dict[str, float | None] = {}
    traits: tuple[float, ...] = ()
    unknown: bool = False
    front: Literal["", "left", "right"] = ""
    why_not: str = ""

    @property
    def name(self) -> str:
        """What a person knows it by: an image has no scan id of its own."""
        return self.scan if self.scan and self.lane != OFFLINE else self.file


def files_of(archive: Iterable[Path]) -> list[Path]:
    """Return the recordings and images in files and folders. Raises DataError for a folder without any."""
    found: list[Path] = []
    for path in archive:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.endswith((recording.SUFFIX, *IMAGES)))
        if not inside:
            raise DataError(
                f"{path}: no recording (*{recording.SUFFIX}) and no image ({', '.join(IMAGES)}) in this folder or below"
            )
        found += inside
    return found


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How scans are judged to learn from them.

    energy : file of the lane's energy calibration; polarity : of image files
    goods, fuser : what was learned of the lane before, the latter as a file
    maps : the maps of the scan are wanted as well
    """

    energy: str | None = None
    polarity: str = "auto"
    goods: GoodsHistory | None = None
    fuser: str | None = None
    maps: bool = False


def example_of(path: Path, how: How) -> tuple[Example, Maps | None]:
    """Return what is learned from the recording or image at `path`; one that cannot be read says so."""
    try:
        with ForeignFiles() as readers:
            if path.name.endswith(recording.SUFFIX):
                scan = readers.recording(path).scan
            else:
                options = raster.RasterOptions(polarity=how.polarity)  # type: ignore[arg-type]
                scan = image_scan(path, options, readers)
    except (ScannerError, OSError) as error:
        return Example(file=str(path), why_not=f"cannot be read: {error}"), None
    profile = _profile(how.energy)
    profile = msgspec.structs.replace(profile, image=msgspec.structs.replace(profile.image, goods=how.goods))
    maps: list[Maps] = []

    def look(asked: Asked) -> None:
        if how.maps and asked.seen is not None:
            maps.append(asked.seen.maps)

    learned = learn(scan, profile, str(path), fuser=None if how.fuser is None else _fuser(how.fuser), look=look)
    return learned, maps[0] if maps and not learned.why_not else None


@lru_cache(maxsize=2)
def _profile(energy: str | None) -> pipeline.Profile:
    profile: pipeline.Profile = lane_profile(energy)
    return profile


@lru_cache(maxsize=1)
def _fuser(path: str) -> Fuser:
    return load_fuser(Path(path))


@lru_cache(maxsize=1)
def _buffers() -> Buffers:
    return Buffers()


def learn(
    scan: Scan, profile: pipeline.Profile, file: str = "", *, fuser: Fuser | None = None, look: Look | None = None
) -> Example:
    """Return what is learned from a scan. fuser, look : see `pipeline.judged`."""
    told = Example(
        file=file or scan.source, scan=scan.scan_id, lane=scan.lane, utc_ns=scan.start_utc_ns, simulated=scan.simulated
    )
    if scan.radiograph is None:
        return msgspec.structs.replace(told, why_not="it has no radiograph")
    told = msgspec.structs.replace(told, counts_hash=recording.pixels_hash(scan.radiograph))
    try:
        result, image = pipeline.judged(scan, profile, buffers=_buffers(), fuser=fuser, look=look)
    except Exception as error:  # as beside a lane: a scan that cannot be judged costs itself alone, and says so
        return msgspec.structs.replace(told, why_not=f"judging it failed: {type(error).__name__}: {error}")
    why = why_no_example(result)
    if why or image is None:
        return msgspec.structs.replace(told, why_not=why)
    return msgspec.structs.replace(
        told, cell=image.cell, scores=image.scores, vital_signs=image.vital_signs, traits=image.traits,
        unknown=any(f.kind == TEXTURE_UNKNOWN for f in image.findings),
        front="" if image.vehicle is None else image.vehicle.front or "",
    )  # fmt: skip


def examples_of(
    files: Sequence[Path], hows: Sequence[How], progress: Callable[[], None], pool: Executor | None
) -> Iterator[tuple[Example, Maps | None]]:
    """Yield what is learned from every file, in order."""
    learned = pool.map(example_of, files, hows, chunksize=_CHUNK) if pool else map(example_of, files, hows)
    for one in learned:
        progress()
        yield one


def found_in(archive: Iterable[Path], find_codes: Iterable[int]) -> tuple[set[str], set[str]]:
    """Return the scans decided `inspect` with a code that means a find, and those sent to inspection without one.

    Decisions are in the outbox of the state folder that the recordings lie in; an archive elsewhere knows none.
    """
    codes = set(find_codes)
    finds: set[str] = set()
    sent: set[str] = set()
    folders = {folder for path in archive for folder in (path.resolve(), *path.resolve().parents)}
    places = {place for folder in folders if (place := outbox_in(folder)) is not None}
    for place in places:
        for decision in decisions_in(place):
            if decision.verdict == "inspect":
                (finds if codes & set(decision.codes) else sent).add(decision.scan_id)
    return finds, sent - finds


def sorted_out(
    examples: Iterable[Example], finds: set[str], lane: str | None, taught: Sequence[Example] = ()
) -> tuple[list[Example], tuple[Excluded, ...]]:
    """Return the examples to learn from, and the others with the reason.

    taught : scans that have been learned from already

    Raises DataError if scans of several lanes, or simulated and real ones, would be mixed.
    """
    kept: list[Example] = []
    excluded: list[Excluded] = []
    seen = {one.counts_hash: one.name for one in taught}
    for one in examples:
        why = one.why_not
        if not why and lane is not None and one.lane != lane:
            why = f"of lane {one.lane}"
        if not why and one.scan in finds:
            why = "decided inspect, with a find"
        if not why and one.counts_hash in seen:
            why = f"the same counts as {seen[one.counts_hash]}"
        if why:
            excluded.append(Excluded(scan=one.name, reason=why))
            continue
        seen[one.counts_hash] = one.name
        kept.append(one)
    lanes = sorted({one.lane for one in (*kept, *taught)})
    if len(lanes) > 1:
        raise DataError(f"scans of the lanes {', '.join(lanes)}: a profile is of one lane; choose with --lane")
    if len({one.simulated for one in kept}) > 1:
        raise DataError(
            f"{sum(one.simulated for one in kept)} of {len(kept)} scans are simulated: what is usual among them says "
            "nothing of real ones; name an archive of one or the other"
        )
    return kept, tuple(excluded)


def profile_of(
    kept: Sequence[Example], excluded: tuple[Excluded, ...], *, flag_rate: float, thresholds: str,
    confidence: float = CONFIDENCE, lane: str | None = None, extras: dict[str, Extra] | None = None,
    teachers: Sequence[Example] = (),
) -> LaneProfile:  # fmt: skip
    """Return what is usual among `kept`. extras : what was learned of the lane from `teachers`.

    Raises DataError if they are too few, with the number needed.
    """
    least = least_scans(flag_rate)
    if len(kept) < least:
        causes = Counter(e.reason.split(":")[0] for e in excluded)
        left_out = "; left out: " + ", ".join(f"{n} {why}" for why, n in causes.most_common()) if excluded else ""
        raise DataError(
            f"{len(kept)} scans to learn from, a promise of {flag_rate:.2%} needs at least {least}: with fewer its "
            f"rate could not be kept to within a third of it{left_out}; gather more scans, or promise more flags by "
            "--flag-rate"
        )
    table, words = strata_of([one.cell for one in kept], least)
    cells = tuple(sorted({one.cell for one in kept}))
    stratum = np.array([table[one.cell] for one in kept], np.int32)
    kinds = tuple(KINDS)
    looks = Counter(one.cell[0] for one in kept)
    return LaneProfile(
        lane=lane or kept[0].lane, simulated=kept[0].simulated, software=__version__, thresholds=thresholds,
        flag_rate=flag_rate, confidence=confidence, level=level_of(flag_rate, len(kept), confidence),
        first_utc_ns=min(one.utc_ns for one in kept), last_utc_ns=max(one.utc_ns for one in kept),
        sources=tuple(one.counts_hash for one in kept), excluded=excluded, kinds=kinds, weights=(1.0,) * len(kinds),
        vitals=VITALS, cells=cells,
        strata=tuple(
            Stratum(
                words=text, cells=tuple(sorted(c for c, n in table.items() if n == number)),
                scans=int((stratum == number).sum()),
            )
            for number, text in enumerate(words)
        ),
        scores=np.array([[one.scores.get(k, -np.inf) for k in kinds] for one in kept], np.float64),
        vital_signs=np.array([[_number(one.vital_signs.get(v)) for v in VITALS] for one in kept], np.float64),
        cell_of_scan=np.array([cells.index(one.cell) for one in kept], np.int32), stratum_of_scan=stratum,
        extras=extras or {}, teachers=tuple(one.counts_hash for one in teachers),
        tractor=_tractor(kept), unknown_scans=sum(one.unknown or looks[one.cell[0]] < LEAST_KNOWN for one in kept),
    )  # fmt: skip


def _tractor(kept: Sequence[Example]) -> Literal["", "left", "right"]:
    """Return the side of all tractors, but for one in fifty that was taken for one; empty where too few are seen."""
    sides = Counter(one.front for one in kept if one.front)
    side, most = max(sides.items(), key=lambda item: item[1], default=("", 0))
    return side if most >= LEAST_KNOWN and most >= 0.98 * sides.total() else ""  # type: ignore[return-value]


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def report_of(profile: LaneProfile, sent: int = 0) -> dict[str, Any]:
    """Return what `--json` prints of a profile. sent : scans kept although sent for inspection, without a find."""
    strata = []
    for stratum in profile.strata:
        n, k = stratum.scans, int(profile.level * (stratum.scans + 1))
        strata.append({
            "stratum": stratum.words, "scans": n, "smallest_p": 1 / (n + 1),
            "expected_rate": k / (n + 1),
            "rate_high_95": float(betaincinv(k, n + 1 - k, 0.95)) if k else 0.0,
        })  # fmt: skip
    asked = {k: int(np.isfinite(profile.scores[:, i]).sum()) for i, k in enumerate(profile.kinds)}
    scored = {k: int((profile.scores[:, i] > 0).sum()) for i, k in enumerate(profile.kinds)}
    share = np.array([s["scans"] for s in strata]) / profile.scans
    return {
        "lane": profile.lane, "simulated": profile.simulated, "sha256": profile.sha256, "scans": profile.scans,
        "teachers": len(profile.teachers),
        "from_utc": recording.iso(profile.first_utc_ns), "to_utc": recording.iso(profile.last_utc_ns),
        "flag_rate": profile.flag_rate, "confidence": profile.confidence, "level": profile.level,
        "expected_rate": float(share @ np.array([s["expected_rate"] for s in strata])),
        "strata": strata, "kinds": {k: {"asked": asked[k], "scored": scored[k]} for k in profile.kinds},
        "excluded": [msgspec.to_builtins(e) for e in profile.excluded], "inspected_without_find": sent,
        "tractor": profile.tractor, "unknown": _unknown(profile), "software": profile.software,
        "learned": {name: _learned(name, e) for name, e in profile.extras.items()},
    }  # fmt: skip


def _unknown(profile: LaneProfile) -> dict[str, Any]:
    """Return what there is to tell of loads whose look is not known: they are reviewed beside the promise."""
    found = textures_of(profile)
    single = ("empty", "loaded") if found.keys() & {"loaded"} else ("empty", "homogeneous", "restless")
    looks = {name: found.get(name, 0) for name in (*dict.fromkeys((*single, *sorted(found))), SEVERAL)}
    k, n = profile.unknown_scans, profile.scans
    return {
        "scans": k, "expected_rate": k / n, "rate_high_95": 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.95)),
        "looks": looks, "needed": LEAST_KNOWN, "missing": [name for name, have in looks.items() if have < LEAST_KNOWN],
    }  # fmt: skip


def _learned(name: str, extra: Extra) -> dict[str, Any]:
    """Return what there is to tell of something learned beside the scores."""
    if name == GOODS:
        return {"scans_by_chapter": {digits: of["scans"] for digits, of in extra.facts.get("chapters", {}).items()}}
    return dict(extra.facts)


def in_words(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that people read."""
    simulated = " SIMULATED" if report["simulated"] else ""
    yield f"lane {report['lane']}:{simulated} {report['scans']} scans from {report['from_utc']} to {report['to_utc']}"
    yield (
        f"promise: a calibrated finding flags at most {report['flag_rate']:.2%} of innocent scans "
        f"({report['confidence']:.0%} sure over calibrations); expected {report['expected_rate']:.2%}; flagged up to "
        f"p = {report['level']:.4f}"
    )
    for s in report["strata"]:
        yield (
            f"  {s['stratum']}: {s['scans']} scans, expected {s['expected_rate']:.2%}, with 95 % at most "
            f"{s['rate_high_95']:.2%}; no p below {s['smallest_p']:.2g}"
        )
    yield from _unknown_in_words(report["unknown"])
    if report["tractor"]:
        yield f"  tractors are on the {report['tractor']}: a mirrored scan, or a backward one, is told by it"
    else:
        yield "  on which side tractors are is not known: a mirrored scan cannot be told"
    for kind, counted in report["kinds"].items():
        yield f"  {kind}: searched in {counted['asked']} scans, something seen in {counted['scored']}"
    if report["teachers"]:
        yield f"  {report['teachers']} other scans taught what these were judged by:"
    if goods := report["learned"].get(GOODS):
        told = ", ".join(f"{digits} ({scans})" for digits, scans in goods["scans_by_chapter"].items())
        yield f"  history of declared goods, chapter (scans): {told}"
    if fuser := report["learned"].get(FUSER):
        yield f"  usual scores by place, bank of patches and thresholds by texture from {fuser['scans']} scans"
        if not fuser["looks_known"]:
            yield f"  MISSING: fewer than {LEAST_KNOWN} of these were loaded, so no load is known; add loaded scans"
    if since := report.get("since"):
        yield (
            f"since it came into force: {since['flagged']} of {since['scans']} scans flagged, {since['unknown']} "
            "reviewed beside the promise for a look that is not known"
        )
        yield f"  {'STALE: ' + since['stale'] if since['stale'] else 'nothing speaks against it'}"
    if report["inspected_without_find"]:
        yield f"  {report['inspected_without_find']} scans sent for inspection without a find told of are learned from"
    for why, count in Counter(e["reason"] for e in report["excluded"]).most_common():
        first = next(e["scan"] for e in report["excluded"] if e["reason"] == why)
        yield f"left out: {why}: {first}{f' and {count - 1} more' if count > 1 else ''}"


def _unknown_in_words(unknown: dict[str, Any]) -> Iterator[str]:
    yield (
        "beside the promise: a load of a look that is not known is always reviewed; expected "
        f"{unknown['expected_rate']:.2%} ({unknown['scans']} of the scans learned from), "
        f"with 95 % at most {unknown['rate_high_95']:.2%}"
    )
    yield f"  known from {unknown['needed']} scans on: " + ", ".join(f"{k} {n}" for k, n in unknown["looks"].items())
    if missing := unknown["missing"]:
        told = ", ".join(f"{name} ({unknown['looks'][name]} of {unknown['needed']})" for name in missing)
        yield f"  MISSING, so every such scan will be reviewed: {told}; add scans of them to the archive"


def calibrate_lane(
    archive: Sequence[Path], *, flag_rate: float, energy: Path | None = None, polarity: str = "auto",
    lane: str | None = None, find_codes: Sequence[int] = (), progress: Callable[[], None] = lambda: None,
    pool: Executor | None = None,
) -> tuple[LaneProfile, int]:  # fmt: skip
    """Return what is usual in the archive, and how many scans were kept that had been sent for inspection.

    Every third scan teaches what the others are judged by (see `lane_normal`), if there are enough.

    Raises DataError if there is too little to learn from, ConfigError for an energy calibration that cannot be used.
    """
    if not 0 < flag_rate <= 0.5:
        raise ConfigError([f"--flag-rate {flag_rate:g}: expected a share above 0 and up to 0.5"])
    how = How(energy=None if energy is None else str(energy), polarity=polarity)
    finds, sent = found_in(archive, find_codes)
    files = files_of(archive)
    teachers = files[2::3] if len(files) >= 2 * least_scans(flag_rate) else []
    extras, taught, left_out = _taught(teachers, how, finds, lane, progress, pool)
    with TemporaryDirectory(prefix="scanlane-") as folder:
        if GOODS in extras:
            how = msgspec.structs.replace(how, goods=msgspec.convert(extras[GOODS].facts, GoodsHistory))
        if FUSER in extras:
            place = Path(folder) / "fuser.npz"
            place.write_bytes(extras[FUSER].arrays["npz"].tobytes())
            how = msgspec.structs.replace(how, fuser=str(place))
        others = [f for f in files if f not in set(teachers)]
        examples = [one for one, _ in examples_of(others, [how] * len(others), progress, pool)]
    if not extras:  # nothing came of it, so they were judged as the others are
        examples, taught = [*taught, *examples], []
    kept, excluded = sorted_out(examples, finds, lane, taught)
    profile = profile_of(
        kept, (*left_out, *excluded), flag_rate=flag_rate, thresholds=_profile(how.energy).thresholds, lane=lane,
        extras=extras, teachers=taught,
    )  # fmt: skip
    return profile, sum(one.scan in sent for one in kept)


def _taught(
    teachers: Sequence[Path], how: How, finds: set[str], lane: str | None, progress: Callable[[], None],
    pool: Executor | None,
) -> tuple[dict[str, Extra], list[Example], tuple[Excluded, ...]]:  # fmt: skip
    """Return what the teachers teach, those that do, and those that are left out."""
    trained = fuser_named(_profile(how.energy).image.fuser)
    examples = [one for one, _ in examples_of(teachers, [how] * len(teachers), progress, pool)]
    kept, excluded = sorted_out(examples, finds, lane)
    goods = learned_goods([(one.cell[1], one.traits) for one in kept if one.traits])
    fuser = None
    if trained is not None:
        chosen = [Path(one.file) for one in evenly([one for one in kept if one.cell[0] != SEVERAL], MOST_MAPS)]
        hows = [msgspec.structs.replace(how, maps=True)] * len(chosen)
        maps = [seen for _, seen in examples_of(chosen, hows, lambda: None, pool) if seen is not None]
        fuser = learned_fuser(maps, trained)
    return extras_of(goods, fuser), kept, excluded


def evenly(kept: Sequence[Example], most: int) -> list[Example]:
    """Return up to `most` of the examples, of every look as many as of the others, as far as there are some."""
    by_look: dict[str, list[Example]] = {}
    for one in kept:
        by_look.setdefault(one.cell[0], []).append(one)
    turns = itertools.zip_longest(*(own for _, own in sorted(by_look.items())))
    return [one for turn in turns for one in turn if one is not None][:most]
