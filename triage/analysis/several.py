"""Several containers on one vehicle: each is judged in a part of the radiograph of its own, and told apart in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from scanner_io.model import Box, Finding, Load, Quality, Radiograph

from .container import Frame
from .fusion import TIER_ORDER
from .known import Known
from .material import Mass
from .standing import Lane, cell_of, mean_signs, standing_of, unlearned, verdict_of
from .uninspectable import KIND as OPAQUE

if TYPE_CHECKING:
    from .image import ImageJudgement


def judge_each(
    radiograph: Radiograph,
    frames: tuple[Frame, ...],
    judge: Callable[[Radiograph, Known | None, Lane], ImageJudgement],
    known: Known | None,
    lane: Lane = None,
) -> ImageJudgement:
    """Return the judgement of a radiograph with more than one container.

    frames : in upright pixels of the full image, left to right
    judge : judges a part of the radiograph with one container in it, and what is known of that
    known : of the whole passage; an earlier scan shows one container, it is not known which
    lane : what is usual on the lane. It promises a rate of flagged scans, not of containers: the scan is compared by
        the strangest of all its containers, with others of several, and each part is told what came of it

    Findings and quality are those of all; the load is loaded where one is, empty where all are. What is a number is
    the worst of them (what could not be seen) or the mean by length. `container` is the box around all.
    """
    cuts = [0, *(round((a.right + b.left) / 2) for a, b in itertools.pairwise(frames)), radiograph.columns]
    names = [f"container {number} of {len(frames)}: " for number in range(1, len(frames) + 1)]

    def judged(usual: Lane) -> list[ImageJudgement]:
        return [
            _moved(judge(_columns(radiograph, first, end), _known(known, first, end), usual), first, name)
            for name, (first, end) in zip(names, itertools.pairwise(cuts), strict=True)
        ]

    parts = judged(None)
    load = _load([part.load for part in parts])
    cell = cell_of(load, None if known is None else known.declaration, containers=len(frames))
    scores = {kind: max(part.scores.get(kind, 0.0) for part in parts) for part in parts for kind in part.scores}
    vitals = mean_signs([part.vital_signs for part in parts if part.vital_signs] or [{}])
    verdict = verdict_of(lane, scores, cell)
    if verdict is not None:
        parts = judged(verdict)
    findings = [*unlearned(lane, verdict), *(f for part in parts for f in part.findings)]
    whole = max(parts, key=lambda part: 0.0 if part.frame is None else part.frame.right - part.frame.left)
    lengths = [b - a for a, b in itertools.pairwise(cuts)]
    timings: dict[str, float] = {}
    for part in parts:
        timings = {k: timings.get(k, 0.0) + part.timings_ms.get(k, 0.0) for k in {**timings, **part.timings_ms}}
    return msgspec.structs.replace(
        whole,
        load=load,
        container=_around([part.container for part in parts]),
        findings=tuple(sorted(findings, key=_rank)),
        quality=_quality(dict(zip(names, parts, strict=True))),
        timings_ms=timings,
        opaque_share=max(part.opaque_share for part in parts),
        load_share=float(np.average([part.load_share for part in parts], weights=lengths)),
        uninspectable=tuple(u for part in parts for u in part.uninspectable),
        containers=tuple(c for part in parts for c in part.containers),
        scores=scores,
        vital_signs=vitals,
        cell=cell,
        standing=standing_of(lane, verdict, scores, vitals, cell, findings),
        traits=(),
        material=msgspec.structs.replace(
            whole.material,
            mass=_mass([part.material.mass for part in parts]),
            findings=tuple(f for part in parts for f in part.material.findings),
            segments=tuple(s for part in parts for s in part.material.segments),
        ),
    )


def _known(known: Known | None, first: int, end: int) -> Known | None:
    """Return what is known of the columns from `first` to before `end`, in columns of that part."""
    if known is None:
        return None
    marks = tuple(
        mark._replace(first=max(mark.first, first) - first, end=min(mark.end, end) - first)
        for mark in known.marks
        if mark.first < end and mark.end > first
    )
    return known._replace(marks=marks, previous=None)


def _columns(radiograph: Radiograph, first: int, end: int) -> Radiograph:
    return msgspec.structs.replace(
        radiograph,
        counts=tuple(np.ascontiguousarray(c[first:end]) for c in radiograph.counts),
        column_utc_ns=np.ascontiguousarray(radiograph.column_utc_ns[first:end]),
        position_mm=None,  # the columns are as even as they become
    )


def _moved(part: ImageJudgement, columns: int, prefix: str) -> ImageJudgement:
    """Return the judgement of a part in columns of the whole, with `prefix` before its words."""
    material = part.material
    return msgspec.structs.replace(
        part,
        container=None if part.container is None else _box(part.container, columns),
        findings=tuple(_finding(f, columns, prefix) for f in part.findings),
        frame=None if part.frame is None else part.frame.moved(columns),
        uninspectable=tuple(u.moved(columns) for u in part.uninspectable),
        containers=tuple(
            msgspec.structs.replace(c, frame=c.frame.moved(columns), box=_box(c.box, columns)) for c in part.containers
        ),
        material=msgspec.structs.replace(
            material,
            findings=tuple(_finding(f, columns, prefix) for f in material.findings),
            segments=tuple(msgspec.structs.replace(s, where=_box(s.where, columns)) for s in material.segments),
        ),
    )


def _finding(finding: Finding, columns: int, prefix: str) -> Finding:
    where = _box(finding.where, columns) if isinstance(finding.where, Box) else finding.where
    return msgspec.structs.replace(finding, reason=prefix + finding.reason, where=where)


def _box(box: Box, columns: int) -> Box:
    return msgspec.structs.replace(box, first_column=box.first_column + columns, end_column=box.end_column + columns)


def _around(boxes: list[Box | None]) -> Box | None:
    seen = [b for b in boxes if b is not None]
    if not seen:
        return None
    return Box(
        first_column=min(b.first_column for b in seen),
        end_column=max(b.end_column for b in seen),
        first_channel=min(b.first_channel for b in seen),
        end_channel=max(b.end_channel for b in seen),
    )


def _load(loads: list[Load]) -> Load:
    if "loaded" in loads:
        return "loaded"
    return "empty" if all(load == "empty" for load in loads) else "unknown"


def _rank(finding: Finding) -> tuple[bool, int]:
    """What could not be seen comes first, as for one container; then what matters more."""
    return finding.kind != OPAQUE, TIER_ORDER[finding.tier]


def _quality(parts: dict[str, ImageJudgement]) -> tuple[Quality, ...]:
    """Return the entries of all parts; what all of them say is said once, what some say with their name."""
    told: dict[Quality, None] = {}
    for name, part in parts.items():
        for q in part.quality:
            everywhere = all(q in other.quality for other in parts.values())
            told[q if everywhere else msgspec.structs.replace(q, reason=name + q.reason)] = None
    return tuple(told)


def _mass(masses: list[Mass]) -> Mass:
    """Return the sum; not known where one of them is not."""
    kg, low = [m.kg for m in masses if m.kg is not None], [m.low_kg for m in masses if m.low_kg is not None]
    if len(kg) < len(masses) or len(low) < len(masses):
        why = "; ".join(dict.fromkeys(m.why for m in masses if m.why))
        return Mass(why=why)
    high = [m.high_kg for m in masses if m.high_kg is not None]
    return Mass(
        kg=sum(kg),
        low_kg=sum(low),
        high_kg=sum(high) if len(high) == len(masses) else None,
        why="; ".join(dict.fromkeys(m.why for m in masses if m.why)),
    )
