"""Columns of the radiograph at which the portal saw an excess, or a dip: dense things there count for more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scanner_io.model import Box, Finding, PortalRecord, Radiograph

from .known import Mark
from .portal_shape import columns_of
from .portal_vendor import around, gamma_background

DIP_SIGMA = 4.0
"""Standard deviations by which a second must lie below its neighbours to be called a dip: five that overlap little in
each passage, so by chance in about one passage of a thousand."""
DIP_SHARE = 0.10
"""And by so much of their rate: the shadow of an even load ripples by a few percent."""


def portal_marks(record: PortalRecord, findings: Sequence[Finding], radiograph: Radiograph | None) -> tuple[Mark, ...]:
    """Return what the portal saw, in columns of the radiograph.

    findings : what the judgement of the portal says; the place of a gamma excess is taken from it
    """
    if radiograph is None:
        return ()
    marks = [
        Mark(f.where.first_column, f.where.end_column, "gamma counts were high")
        for f in findings
        if f.kind == "gamma_place" and isinstance(f.where, Box)
    ]
    dip = deepest_dip(record)
    columns = None if dip is None else columns_of(record, radiograph, dip[0], dip[1])
    if dip is not None and columns is not None:
        marks.append(Mark(*columns, f"gamma counts were {dip[2]:.0%} below those before and behind"))
    return tuple(marks)


def deepest_dip(record: PortalRecord) -> tuple[int, int, float] | None:
    """Return first and end interval and depth (share of its neighbours' rate) of the deepest second; None without one.

    A second is held against the second before the gap at its side and that behind: against the lower of both, so that
    the shadow's own slopes make no dip.
    """
    n, second = record.gamma.shape[0], max(1, round(1.0 / record.gamma_interval_s))
    before, _ = around(record)
    if gamma_background(record) is None or n < before + 5 * second:
        return None
    sums = np.convolve(record.gamma[before:].sum(axis=1), np.ones(second), mode="valid")
    away = 2 * second
    if sums.size <= 2 * away:
        return None
    beside = np.minimum(sums[: -2 * away], sums[2 * away :])
    less = beside - sums[away:-away]
    # two counts of one rate differ with twice its variance; the lower of two is lower still, which only helps
    sigma = less / np.sqrt(np.maximum(beside + sums[away:-away], 1.0))
    at = int(np.argmax(sigma))
    share = float(less[at] / max(beside[at], 1.0))
    if sigma[at] < DIP_SIGMA or share < DIP_SHARE:
        return None
    return before + away + at, before + away + at + second, share
