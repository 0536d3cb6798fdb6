"""What is normal for a lane, as a search of its images needs it: usual scores by place, and a bank of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError

from .maps import Maps, with_bank
from .patches import HEIGHT_WEIGHT, Bank
from .position_tables import NORMALISED, PositionTables, sketch, tables_of

Array: TypeAlias = NDArray[Any]

UNTRAINED = ("z_21_81", "bank_16", "low_rank")
"""Maps whose normalised sizes are summed where nothing was trained."""
BANK_PATCHES = 6_000
"""Of every size, of all scans together: as many as can be compared in the time."""
ALIKE = 4
"""Patches drawn for each of the bank."""
LITTLE = 0.02
"""Of all cells: less load than this has no texture."""
_FAMILIAR_SHARE = 95.0
LEAST_KNOWN = 20
"""Clean scans of a look from which it is known: fewer cannot say what 95 % of them stay under."""
_FLOOR, _END = 0.17, 0.08
"""Of the height: floor with its cross-members, end frames with their castings."""
_LOAD = 0.6
"""-ln T of what is load; two walls have .1 to .25."""


class Normal(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is normal.

    tables, bank : see there
    familiar : median distance of a loaded scan's patches to the bank that 95 % of the clean scans stay under, each
        measured against the others; above, a texture is not known. None where fewer than LEAST_KNOWN scans were loaded:
        then none is
    scans : number of clean scans it was learnt from
    """

    tables: PositionTables
    bank: Bank
    familiar: float | None
    scans: int


def learn_normal(scans: Sequence[Maps], rng: np.random.Generator, groups: Sequence[str] | None = None) -> Normal:
    """Return what is normal, from maps of at least two clean scans.

    groups : per scan; scans of one group are not compared with each other (a shipment has several containers)
    """
    return learn_normals(scans, rng, groups or [str(i) for i in range(len(scans))])[0]


def learn_normals(
    scans: Sequence[Maps], rng: np.random.Generator, groups: Sequence[str]
) -> tuple[Normal, dict[str, Normal]]:
    """Return what is normal by all scans, and for every group what is normal by the others.

    Distances to the bank are those of every scan to other groups, as they are for a scan to come.

    Raises DataError for less than two groups.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise DataError(f"{len(scans)} clean scans of {len(names)} groups: what is normal is learnt from at least two")
    parts = [bank_part(maps, rng, BANK_PATCHES // len(scans) + 1) for maps in scans]
    others = {name: joined([p for p, g in zip(parts, groups, strict=True) if g != name]) for name in names}
    known = [with_bank(maps, others[g]) for maps, g in zip(scans, groups, strict=True)]
    sketches = [sketch(m.values, m.seen) for m in known]
    strange = [unfamiliarity(m) for m in known]

    def by(used: Sequence[int], bank: Bank) -> Normal:
        levels = [s for s in (strange[i] for i in used) if s is not None]
        return Normal(
            tables=tables_of([sketches[i] for i in used], [n for n in NORMALISED if n in known[0].values]),
            bank=bank,
            familiar=float(np.percentile(levels, _FAMILIAR_SHARE)) if len(levels) >= LEAST_KNOWN else None,
            scans=len(used),
        )

    without = {name: by([i for i, g in enumerate(groups) if g != name], others[name]) for name in names}
    return by(range(len(scans)), joined(parts)), without


def bank_part(maps: Maps, rng: np.random.Generator, count: int) -> Bank:
    """Return up to `count` patches of each size of one scan, drawn evenly, with their rows.

    Each is the mean of itself and of those of ALIKE times as many drawn that are most like it: typical patches, none of
    them a piece of the scan.
    """
    found = []
    for codes in maps.codes:
        flat = codes.reshape(-1, codes.shape[-1])
        drawn = flat[rng.permutation(len(flat))[: ALIKE * count]].astype(np.float64)
        seeds = drawn[:count]
        apart = (drawn**2).sum(axis=1)[:, None] - 2 * drawn @ seeds.T + (seeds**2).sum(axis=1)
        of = apart.argmin(axis=1)
        of[: len(seeds)] = np.arange(len(seeds))
        means = np.zeros_like(seeds)
        np.add.at(means, of, drawn)
        means /= np.bincount(of, minlength=len(seeds))[:, None]
        rows = np.rint(means[:, -1] / HEIGHT_WEIGHT * codes.shape[0])
        found.append(np.concatenate([means, rows[:, None]], axis=1).astype(np.float32))
    return Bank(codes=tuple(found))


def joined(banks: Sequence[Bank]) -> Bank:
    """Return one bank of several."""
    return Bank(codes=tuple(np.concatenate(codes) for codes in zip(*(b.codes for b in banks), strict=True)))


def unfamiliarity(maps: Maps) -> float | None:
    """Return the median distance of the loaded cells to the bank, in -ln T; None where little is loaded."""
    load = loaded(maps)
    if "bank_16" not in maps.values or load.mean() < LITTLE:
        return None
    return float(np.median(maps.values["bank_16"][load]))


def loaded(maps: Maps) -> Array:
    """Return (rows, columns) bool: cells of load, away from the floor and the end frames."""
    values = maps.values
    inside = (values["height"] > _FLOOR) & (values["to_end"] > _END)
    return np.asarray(maps.seen & inside & (values["mean_21"] > _LOAD))


def untrained_score(maps: Maps, normal: Normal) -> Array:
    """Return (rows, columns) float32: the sum of three maps, each as a share of what is usual at its place."""
    found = np.zeros(maps.shape, np.float32)
    for name in UNTRAINED:
        found += np.abs(normal.tables.normalised(name, maps.values[name]))
    return found
