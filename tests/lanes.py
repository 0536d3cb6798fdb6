"""Calibrated lanes made from a seed, without an image."""

import msgspec
import numpy as np

from scanner_io import lane_profile
from triage.analysis.drift import Seen, numbers_of
from triage.analysis.kinds import KINDS
from triage.analysis.vital_signs import VITALS
from triage.study.calibrate_lane import Example, profile_of

CELLS = (("loaded", "09"), ("loaded", "85"), ("empty", "declared empty"))


def example(rng, number, cells=CELLS, **shift):
    """Return a clean scan whose numbers are drawn; shift : what is added to a vital sign or to every score."""
    strange = float(rng.normal())  # restless loads are so in every kind
    scores = {k: max(0.0, float(strange + rng.normal()) + shift.get("scores", 0.0)) for k in KINDS}
    vitals = {v: float(rng.normal()) + shift.get(v, 0.0) for v in VITALS}
    return Example(
        file=f"{number}.png", scan=f"north-{number}", lane="north", utc_ns=number, counts_hash=f"{number:064x}",
        cell=cells[int(rng.integers(len(cells)))], scores=scores, vital_signs=vitals,
    )  # fmt: skip


def examples(rng, count, first=0, **how):
    return [example(rng, first + i, **how) for i in range(count)]


def profile(count=200, flag_rate=0.05, seed=3, **changes):
    """Return a profile as it is read from its file."""
    learned = profile_of(examples(np.random.default_rng(seed), count), (), flag_rate=flag_rate, thresholds="t" * 64)
    learned = msgspec.structs.replace(learned, **changes)
    return msgspec.structs.replace(learned, sha256=lane_profile.encode(learned)[1])


def seen(one, *, flagged=False):
    """Return an example as the watch takes it."""
    return Seen(scan=one.scan, cell=one.cell, numbers=numbers_of(one.scores, one.vital_signs), flagged=flagged)
