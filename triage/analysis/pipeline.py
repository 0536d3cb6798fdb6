"""The judgement of one scan: a pure function, the same live, replayed and offline."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from scanner_io import __version__
from scanner_io.errors import DataError
from scanner_io.lane_profile import LaneProfile
from scanner_io.model import Box, Finding, Load, Quality, Radiograph, Scan, TriageResult

from .cargo_grid import CargoGrid
from .declaration import judge_declaration, judge_mass
from .drift import still_stale
from .earlier import earlier_cargo
from .fuser import Fuser, fuser_named
from .fuser import digest as fuser_digest
from .fusion import TIER_ORDER, fuse
from .image import ImageJudgement, ImageProfile, Look, Stream, judge_image
from .known import Known
from .material import Mass
from .portal import PortalJudgement, PortalProfile, judge_portal
from .portal_marks import portal_marks
from .rectify import in_raw_columns, located, rectify
from .risk import RiskProfile
from .risk_finding import with_risk
from .standing import fuser_of, goods_of


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All thresholds of judgement. `identity` names the very values, so that a result can be traced to them.

    lane : what is usual on the lane, learned by `scanlane calibrate`; None: findings have no p-value
    risk : rules by which a score is made of papers and of all that was found; None: none is made
    """

    name: str = "default"
    image: ImageProfile = ImageProfile()
    portal: PortalProfile = PortalProfile()
    lane: LaneProfile | None = None
    risk: RiskProfile | None = None

    @property
    def identity(self) -> str:
        """Name and hash of the values; of a fuser's own values, not of its file's name."""
        image = msgspec.structs.replace(self.image, fuser=_contents(self.image.fuser))
        digest = hashlib.sha256(msgspec.json.encode({"name": self.name, "image": image, "portal": self.portal}))
        if self.lane is not None:
            digest.update(self.lane.sha256.encode())
        if self.risk is not None:
            digest.update(b"risk" + self.risk.sha256.encode())
        return f"{self.name}@{digest.hexdigest()[:12]}"

    @property
    def thresholds(self) -> str:
        """Hash of what the scores of a scan depend on beside the scan: a lane's profile holds for no other.

        What was learned on the lane is in the lane's profile itself. Raises DataError for a fuser that cannot be read.
        """
        fuser = fuser_named(self.image.fuser)
        name = "none" if fuser is None else fuser_digest(fuser)
        image = msgspec.structs.replace(self.image, goods=None, fuser=name)
        return hashlib.sha256(msgspec.json.encode((image, self.portal))).hexdigest()

    def on_lane(self, lane: LaneProfile) -> Profile:
        """Return these thresholds with what is usual on `lane`. Raises DataError for what cannot be used of it."""
        image = msgspec.structs.replace(self.image, goods=goods_of(lane))
        return msgspec.structs.replace(self, image=image, lane=lane)


def _contents(name: str) -> str:
    """Return what stands for a fuser in a profile's name; one that cannot be read fails judgement, not its name."""
    try:
        fuser = fuser_named(name)
    except DataError:
        return f"unreadable: {name}"
    return "none" if fuser is None else fuser_digest(fuser)


def run(
    scan: Scan,
    profile: Profile,
    *,
    map_strips: Callable[..., Any] = map,
    buffers: Any = None,
    stream: Stream | None = None,
    previous: Radiograph | None = None,
) -> TriageResult:
    """Judge `scan`.

    map_strips : like `map`; a thread pool's map computes strips of the image side by side, with the same result
    buffers : scratch memory to use again, see `screening.Buffers`
    stream : has screened this scan's columns as they came, with the same profile; the result is the same
    previous : an earlier radiograph of the same container
    """
    return judged(scan, profile, map_strips=map_strips, buffers=buffers, stream=stream, previous=previous)[0]


def judged(
    scan: Scan,
    profile: Profile,
    *,
    map_strips: Callable[..., Any] = map,
    buffers: Any = None,
    stream: Stream | None = None,
    previous: Radiograph | None = None,
    fuser: Fuser | None = None,
    look: Look | None = None,
) -> tuple[TriageResult, ImageJudgement | None]:
    """Return what `run` does, and what a lane's calibration learns from: the image's own judgement, None without one.

    fuser : with the normal of a lane whose profile is not there yet; look : see `judge_image`. The others are those of
        `run`.

    An image with positions is judged with even columns, and what is found is told in the columns of the raw one.
    """
    image, flags = located(scan)
    if flags:
        scan = msgspec.structs.replace(scan, quality=scan.quality + flags)
    even = None if image is None else rectify(image)
    before = None if previous is None else rectify(previous)
    if before is not None:
        previous = before.radiograph
    if even is None:
        return _judged(scan, profile, map_strips, buffers, stream, previous, fuser, look)
    flat = msgspec.structs.replace(scan, radiograph=even.radiograph, quality=scan.quality + even.quality)
    result, judgement = _judged(flat, profile, map_strips, buffers, None, previous, fuser, look)
    return in_raw_columns(result, even.columns), judgement


def _judged(
    scan: Scan, profile: Profile, map_strips: Callable[..., Any], buffers: Any, stream: Stream | None,
    previous: Radiograph | None, fuser: Fuser | None, look: Look | None,
) -> tuple[TriageResult, ImageJudgement | None]:  # fmt: skip
    began = time.perf_counter()
    findings: list[Finding] = []
    quality: list[Quality] = [*still_stale(scan.quality, profile.lane), *_absent(scan)]
    timings: dict[str, float] = {}
    load: Load = "unknown"
    container: Box | None = None
    gamma: bool | None = None
    neutron: bool | None = None
    gamma_intervals = alarm_intervals = 0
    mass = Mass(why="no radiograph")
    image: ImageJudgement | None = None
    since = time.perf_counter()
    portal = _portal(scan, profile)
    portal_ms = (time.perf_counter() - since) * 1e3
    if scan.radiograph is not None:
        quality += scan.radiograph.detector.flags
        image = judge_image(
            scan.radiograph, profile.image, map_strips=map_strips, buffers=buffers, stream=stream,
            known=_known(scan, portal, earlier_cargo(previous, profile.image)), lane=profile.lane, look=look,
            fuser=fuser or (None if profile.lane is None else fuser_of(profile.lane)),
        )  # fmt: skip
        load, container = image.load, image.container
        mass = image.material.mass
        findings += image.findings
        if profile.image.energy is not None and container is not None:
            # where a mass could be known, its absence is told as well
            score = 0.0 if mass.kg is None else mass.kg / 1000
            findings.append(Finding(kind="mass", score=score, reason=mass.words, tier="note", where=container))
        quality += image.quality
        timings |= image.timings_ms
    if portal is not None:
        gamma, neutron = portal.gamma_alarm, portal.neutron_alarm
        gamma_intervals, alarm_intervals = portal.gamma_intervals, portal.alarm_intervals
        findings += portal.findings
        quality += portal.quality
        timings["portal"] = portal_ms
    if container is not None and image is not None:
        findings += _unclear(image, container)
    if scan.declaration is not None and scan.radiograph is not None:
        findings += judge_declaration(scan.declaration, load, container)
        findings += judge_mass(scan.declaration, mass, container)
    findings.sort(key=lambda f: TIER_ORDER[f.tier])
    outcome, reasons = fuse(
        findings, quality, vendor_alarm=bool(gamma or neutron),
        anything_judged=scan.radiograph is not None or scan.portal is not None,
    )  # fmt: skip
    timings["total"] = (time.perf_counter() - began) * 1e3
    result = TriageResult(
        scan_id=scan.scan_id, outcome=outcome, reasons=reasons, load=load, container=container,
        findings=tuple(findings), quality=tuple(quality), gamma_alarm=gamma, neutron_alarm=neutron,
        gamma_intervals=gamma_intervals, alarm_intervals=alarm_intervals, profile=profile.identity,
        code_version=__version__, timings_ms={k: round(v, 3) for k, v in timings.items()},
        standing=None if image is None else image.standing,
    )  # fmt: skip
    return with_risk(result, scan, profile.risk), image


def scores_of(scan: Scan, profile: Profile, *, map_strips: Callable[..., Any] = map) -> dict[str, float]:
    """Return the scan's score of every kind of finding that was searched for in its image, see `kinds.scores`.

    They are what `run` judges by with the same profile; empty where the image shows no container or cannot be judged.
    """
    image, _ = located(scan)
    if image is None:
        return {}
    even = rectify(image)
    if even is not None:
        scan = msgspec.structs.replace(scan, radiograph=even.radiograph)
    assert scan.radiograph is not None
    known = _known(scan, _portal(scan, profile))
    return judge_image(scan.radiograph, profile.image, map_strips=map_strips, known=known).scores


def _portal(scan: Scan, profile: Profile) -> PortalJudgement | None:
    if scan.portal is None:
        return None
    # papers that are doubtful explain nothing away
    trusted = None if any(q.code == "declaration_doubtful" for q in scan.quality) else scan.declaration
    return judge_portal(scan.portal, profile.portal, declaration=trusted, radiograph=scan.radiograph)


def _known(scan: Scan, portal: PortalJudgement | None, previous: CargoGrid | None = None) -> Known:
    marks = portal_marks(scan.portal, portal.findings, scan.radiograph) if scan.portal and portal else ()
    return Known(declaration=scan.declaration, marks=marks, previous=previous)


def _unclear(image: ImageJudgement, container: Box) -> Iterator[Finding]:
    """Ask for a look where it is not seen whether a container is empty: one of several as much as the only one."""
    several = len(image.containers)
    unclear = [(number, seen.box) for number, seen in enumerate(image.containers, 1) if seen.load == "unknown"]
    if several < 2 or (image.load == "unknown" and not unclear):
        unclear = [(0, container)] if image.load == "unknown" else []
    for number, box in unclear:
        which = f"container {number} of {several}" if number else "the container"
        reason = f"the radiograph does not show clearly whether {which} is empty"
        yield Finding(kind="load_unclear", score=1.0, reason=reason, tier="review", where=box)


def _absent(scan: Scan) -> Iterator[Quality]:
    """What the lane has and the scan has not, if no flag says so already: a part that was lost is never clear."""
    present = {"radiograph": scan.radiograph, "portal": scan.portal, "declaration": scan.declaration}
    for kind in scan.expected:
        if present[kind] is None and not any(q.code.startswith(kind) for q in scan.quality):
            yield Quality(code=f"{kind}_missing", reason=f"this lane has a {kind}, but the scan has none")


def unjudged(scan: Scan, profile: Profile, code: str, reason: str) -> TriageResult:
    """Return the result of a scan whose judgement failed: UNUSABLE with the reason, so that a person looks."""
    flag = Quality(code=code, reason=reason, fatal=True)
    alarmed = scan.portal is not None and bool(scan.portal.gamma_alarm.any() or scan.portal.neutron_alarm.any())
    outcome, reasons = fuse((), (*scan.quality, flag), vendor_alarm=alarmed, anything_judged=False)
    record = scan.portal
    return TriageResult(
        scan_id=scan.scan_id, outcome=outcome, reasons=reasons, load="unknown", container=None, findings=(),
        quality=(*scan.quality, flag), profile=profile.identity, code_version=__version__,
        gamma_alarm=None if record is None else bool(record.gamma_alarm.any()),
        neutron_alarm=None if record is None else bool(record.neutron_alarm.any()),
        gamma_intervals=0 if record is None else record.gamma.shape[0],
        alarm_intervals=0 if record is None else int(record.gamma_alarm.sum()),
    )  # fmt: skip
