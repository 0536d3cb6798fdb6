"""The judgement of one scan: a pure function, the same live, replayed and offline."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from scanner_io import __version__
from scanner_io.model import Box, Finding, Load, Quality, Scan, TriageResult

from .declaration import judge_declaration, judge_mass
from .fusion import fuse
from .image import ImageProfile, Stream, judge_image
from .known import Known
from .material import Mass
from .portal import PortalJudgement, PortalProfile, judge_portal
from .portal_marks import portal_marks


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All thresholds of judgement. `identity` names the very values, so that a result can be traced to them."""

    name: str = "default"
    image: ImageProfile = ImageProfile()
    portal: PortalProfile = PortalProfile()

    @property
    def identity(self) -> str:
        """Name and hash of the values."""
        return f"{self.name}@{hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]}"


def run(
    scan: Scan,
    profile: Profile,
    *,
    map_strips: Callable[..., Any] = map,
    buffers: Any = None,
    stream: Stream | None = None,
) -> TriageResult:
    """Judge `scan`.

    map_strips : like `map`; a thread pool's map computes strips of the image side by side, with the same result
    buffers : scratch memory to use again, see `screening.Buffers`
    stream : has screened this scan's columns as they came, with the same profile; the result is the same
    """
    began = time.perf_counter()
    findings: list[Finding] = []
    quality: list[Quality] = [*scan.quality, *_absent(scan)]
    timings: dict[str, float] = {}
    load: Load = "unknown"
    container: Box | None = None
    gamma: bool | None = None
    neutron: bool | None = None
    gamma_intervals = alarm_intervals = 0
    mass = Mass(why="no radiograph")
    since = time.perf_counter()
    portal = _portal(scan, profile)
    portal_ms = (time.perf_counter() - since) * 1e3
    if scan.radiograph is not None:
        quality += scan.radiograph.detector.flags
        image = judge_image(
            scan.radiograph, profile.image, map_strips=map_strips, buffers=buffers, stream=stream,
            known=_known(scan, portal),
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
    if container is not None and load == "unknown":
        reason = "the radiograph does not show clearly whether the container is empty"
        findings.append(Finding(kind="load_unclear", score=1.0, reason=reason, tier="review", where=container))
    if scan.declaration is not None and scan.radiograph is not None:
        findings += judge_declaration(scan.declaration, load, container)
        findings += judge_mass(scan.declaration, mass, container)
    outcome, reasons = fuse(
        findings, quality, vendor_alarm=bool(gamma or neutron),
        anything_judged=scan.radiograph is not None or scan.portal is not None,
    )  # fmt: skip
    timings["total"] = (time.perf_counter() - began) * 1e3
    return TriageResult(
        scan_id=scan.scan_id, outcome=outcome, reasons=reasons, load=load, container=container,
        findings=tuple(findings), quality=tuple(quality), gamma_alarm=gamma, neutron_alarm=neutron,
        gamma_intervals=gamma_intervals, alarm_intervals=alarm_intervals, profile=profile.identity,
        code_version=__version__, timings_ms={k: round(v, 3) for k, v in timings.items()},
    )  # fmt: skip


def scores_of(scan: Scan, profile: Profile, *, map_strips: Callable[..., Any] = map) -> dict[str, float]:
    """Return the scan's score of every kind of finding that was searched for in its image, see `kinds.scores`.

    They are what `run` judges by with the same profile; empty where the image shows no container or cannot be judged.
    """
    if scan.radiograph is None:
        return {}
    known = _known(scan, _portal(scan, profile))
    return judge_image(scan.radiograph, profile.image, map_strips=map_strips, known=known).scores


def _portal(scan: Scan, profile: Profile) -> PortalJudgement | None:
    if scan.portal is None:
        return None
    return judge_portal(scan.portal, profile.portal, declaration=scan.declaration, radiograph=scan.radiograph)


def _known(scan: Scan, portal: PortalJudgement | None) -> Known:
    marks = portal_marks(scan.portal, portal.findings, scan.radiograph) if scan.portal and portal else ()
    return Known(declaration=scan.declaration, marks=marks)


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
