"""`scanlane evaluate calibration`: whether a calibrated lane keeps its promise, and whether it notices when it cannot.

A simulated lane is calibrated on some of its scans and judged on thousands of others, all clean and all by the real
judgement. Then the lane drifts, in ways in which lanes do:

    gain         every channel's gain wanders off its reference, by a random 2 % within 200 scans
    goods        a third of the traffic is of three kinds that were never seen before
    blur         the detector loses its focus, a blur of 0.7 pixels both ways

and the scans until the profile is reported stale are counted, from different points of the clean traffic on. The
watch's own promise, hardly ever to say stale without cause, is tried on the clean scans in several orders.

Beside the family's test stands Bonferroni's on the same scores: what both find of simulated threats at one promise.
Everything here is SIMULATED; small images keep thousands of scans affordable.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

import triage.analysis
import triage.kernels
from scanner_io import driver as drivers
from scanner_io.lane_profile import LaneProfile
from scanner_io.model import Scan
from scanner_io.storage import write_durable
from triage.analysis import pipeline
from triage.analysis.conformal import calibration_of
from triage.analysis.drift import BOUND, Seen, Watch, numbers_of
from triage.analysis.kinds import KINDS
from triage.service.assembly import Assembly, LaneSpec
from triage.study.calibrate_lane import Example, learn, profile_of

Array: TypeAlias = NDArray[Any]

LANE = "study"
COLUMNS, CHANNELS = 400, 192
BASE = {
    "empty": 3.0, "cartons": 2.0, "fruit": 1.0, "frozen": 1.0, "sacks": 1.0, "big_bags": 1.0, "bulk": 1.0,
    "flexitank": 1.0, "bales": 1.0, "drums": 1.0, "paper": 1.0, "mixed": 1.0, "tiles": 1.0,
}  # fmt: skip
"""Traffic of the lane; what it is not becomes the new goods."""
NEW = {"machinery": 2.7, "coils": 2.7, "timber": 2.7}
GAIN_SD, GAIN_SCANS, BLUR_PIXELS = 0.02, 200, 0.7
DRIFTS = ("gain", "goods", "blur")
STALE_WITHIN = 200
CHUNK = 25
Progress = Callable[[], None]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Scans `first` to `first + count` of the simulated lane.

    drift : one of DRIFTS, or ""; drifted : for how many scans, at the first of this part
    threats : every vehicle has one
    """

    seed: int
    first: int
    count: int
    drift: str = ""
    drifted: int = 0
    threats: bool = False

    def config(self) -> dict[str, Any]:
        """Return the settings of the simulated driver."""
        return {
            "seed": self.seed, "columns": COLUMNS, "channels": CHANNELS, "energies": 1, "portal": False, "speed": 0.0,
            "cargo": BASE | NEW if self.drift == "goods" else BASE, "threat_share": float(self.threats),
            "misdeclared_share": 0.0, "source_share": 0.0, "neutron_share": 0.0, "norm_share": 0.0,
        }  # fmt: skip


@lru_cache(maxsize=1)
def code() -> str:
    """Return a hash of all code that scores depend on, so that kept scores are never those of other code."""
    digest = hashlib.sha256()
    folders = [Path(m.__file__ or "").parent for m in (triage.analysis, triage.kernels, drivers.load("simulated"))]
    for path in sorted(p for folder in folders for p in folder.glob("*.*") if p.suffix in (".py", ".csv")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def examples(part: Part, cache: Path | None) -> list[Example]:
    """Simulate and judge one part, or take it from the cache."""
    place = None
    if cache is not None:
        key = hashlib.sha256(msgspec.json.encode((code(), part, part.config()))).hexdigest()
        place = cache / f"{key[:24]}.msgpack"
        if place.is_file():
            return msgspec.msgpack.decode(place.read_bytes(), type=list[Example])
    done = [learn(_disturbed(scan, part, n), pipeline.Profile()) for n, scan in _scans(part)]
    if place is not None:
        write_durable(place, msgspec.msgpack.encode(done), replace=True)
    return done


def _scans(part: Part) -> Iterator[tuple[int, Scan]]:
    module = drivers.load("simulated")
    config = module.Config(**part.config())
    assembly = Assembly(LaneSpec(name=LANE, expected=module.kinds(config), join_wait_s=float("inf")))
    assembly.device(0, module.connect(config).open())
    for index in range(part.first, part.first + part.count):
        ready = [one for event in module.simulate_passage(config, index) for one in assembly.feed(0, event, 0.0)]
        for one in (*ready, *assembly.flush()):
            yield index - part.first, one.scan


def _disturbed(scan: Scan, part: Part, number: int) -> Scan:
    """Return the scan as a lane sees it that has drifted for so many scans, counted from the first of all parts."""
    image = scan.radiograph
    if image is None or part.drift not in ("gain", "blur"):
        return scan
    if part.drift == "gain":
        wander = np.random.default_rng((part.seed, 77)).normal(0, GAIN_SD, image.detector.channels)
        factor = np.exp(wander * min(1.0, (part.drifted + number) / GAIN_SCANS))
        counts = tuple(_counts(c * factor) for c in image.counts)
    else:
        counts = tuple(_counts(cv2.GaussianBlur(c.astype(np.float32), (0, 0), BLUR_PIXELS)) for c in image.counts)
    return msgspec.structs.replace(scan, radiograph=msgspec.structs.replace(image, counts=counts))


def _counts(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


# --------------------------------------------------------------------------------------------------------------
# The study


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is simulated: scans to calibrate on, clean ones to judge, drifted ones each, ones with a threat.

    orders : in which the watch sees clean scans, and points from which on a drift begins
    """

    calibration: int = 3000
    clean: int = 5000
    drifted: int = 250
    threats: int = 500
    orders: int = 20


def parts_of(size: Size, seed: int) -> dict[str, list[Part]]:
    """Return what is to be simulated, by purpose; no scan serves two."""
    counts = {"calibration": size.calibration, "clean": size.clean, **dict.fromkeys(DRIFTS, size.drifted)}
    counts["threats"] = size.threats
    first = 0
    found: dict[str, list[Part]] = {}
    for purpose, count in counts.items():
        found[purpose] = [
            Part(
                seed=seed, first=first + done, count=min(CHUNK, count - done),
                drift=purpose if purpose in DRIFTS else "", drifted=done if purpose in DRIFTS else 0,
                threats=purpose == "threats",
            )
            for done in range(0, count, CHUNK)
        ]  # fmt: skip
        first += count
    return found


def evaluate_calibration(
    size: Size, *, seed: int, flag_rate: float, cache: Path | None = None, progress: Progress = lambda: None,
    pool: Executor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the report, see the module."""
    began = time.perf_counter()
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    parts = parts_of(size, seed)
    flat = [part for purpose in parts.values() for part in purpose]
    learned: dict[str, list[Example]] = {purpose: [] for purpose in parts}
    owners = [purpose for purpose, own in parts.items() for _ in own]
    done = pool.map(examples, flat, [cache] * len(flat)) if pool else map(examples, flat, [cache] * len(flat))
    for purpose, found in zip(owners, done, strict=True):
        learned[purpose] += found
        progress()
    kept = {purpose: [one for one in found if not one.why_not] for purpose, found in learned.items()}
    thresholds = pipeline.Profile().thresholds
    profile = profile_of(kept["calibration"], (), flag_rate=flag_rate, thresholds=thresholds)
    rng = np.random.default_rng((seed, 5))
    clean = _seen(profile, kept["clean"])
    drifted = {name: _seen(profile, kept[name]) for name in DRIFTS}
    return {
        "simulated": True, "seed": seed, "image": [COLUMNS, CHANNELS], "code": code()[:16],
        "scans": {purpose: len(found) for purpose, found in learned.items()},
        "left_out": {purpose: len(learned[purpose]) - len(kept[purpose]) for purpose in learned},
        "promised": flag_rate, "level": profile.level, "strata": [msgspec.to_builtins(s) for s in profile.strata],
        **_rates(profile, kept, clean),
        "splits": _splits(kept, flag_rate, thresholds, rng),
        "exchangeable": _false_stale(profile, clean, size.orders, rng),
        "drift": {name: _delays(profile, clean, drifted[name], size.orders, rng, name) for name in DRIFTS},
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def share(hits: int, of: int) -> dict[str, float | int]:
    """Return a share with its 95 % interval, exact. Source: Clopper and Pearson, Biometrika 26 (1934) 404."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, of - hits + 1, 0.025))
    high = 1.0 if hits == of else float(betaincinv(hits + 1, of - hits, 0.975))
    return {"value": hits / of if of else float("nan"), "low": low, "high": high, "hits": hits, "of": of}


def _seen(profile: LaneProfile, found: Sequence[Example]) -> list[Seen]:
    calibration = calibration_of(profile)
    told = []
    for one in found:
        verdict = calibration.judge(one.scores, one.cell)
        numbers = numbers_of(one.scores, one.vital_signs)
        told.append(
            Seen(
                scan=one.scan, cell=one.cell, numbers=numbers, flagged=verdict.p_value <= verdict.level,
                unknown=one.unknown or bool(verdict.unknown),
            )
        )  # fmt: skip
    return told


def _rates(profile: LaneProfile, kept: dict[str, list[Example]], clean: list[Seen]) -> dict[str, Any]:
    """Return flag rates: clean scans by the profile, by stratum, by thresholds without one, and by Bonferroni."""
    calibration = calibration_of(profile)
    by_stratum: dict[str, list[bool]] = {}
    for one, told in zip(kept["clean"], clean, strict=True):
        by_stratum.setdefault(calibration.judge(one.scores, one.cell).stratum, []).append(told.flagged)
    by_look: dict[str, list[bool]] = {}
    for told in clean:
        by_look.setdefault(told.cell[0], []).append(told.unknown)
    threats = _seen(profile, kept["threats"])
    return {
        "realised": share(sum(s.flagged for s in clean), len(clean)),
        "unknown": share(sum(s.unknown for s in clean), len(clean)),
        "unknown_by_look": {look: share(sum(u), len(u)) for look, u in sorted(by_look.items())},
        "reviewed_beside": share(sum(s.unknown and not s.flagged for s in clean), len(clean)),
        "realised_by_stratum": {name: share(sum(f), len(f)) for name, f in sorted(by_stratum.items())},
        "uncalibrated": share(sum(_by_thresholds(one) for one in kept["clean"]), len(clean)),
        "threats_found": share(sum(s.flagged for s in threats), len(threats)),
        "bonferroni": {
            "realised": share(sum(_bonferroni(profile, one) for one in kept["clean"]), len(clean)),
            "threats_found": share(sum(_bonferroni(profile, one) for one in kept["threats"]), len(threats)),
        },
    }  # fmt: skip


def _by_thresholds(one: Example) -> bool:
    """True where a kind's own threshold, or a look that is not known, would have asked for a review."""
    image = pipeline.Profile().image
    return one.unknown or any(
        k.review is not None and one.scores.get(name, 0.0) >= k.review(image) for name, k in KINDS.items()
    )


def _bonferroni(profile: LaneProfile, one: Example) -> bool:
    """True where a kind's own conformal p-value is at most its equal part of the level."""
    calibration = calibration_of(profile)
    at = calibration.stratum_of(one.cell)
    group = calibration.groups[at]
    own = np.array([one.scores.get(kind, -np.inf) for kind in profile.kinds])
    p = (1 + (group.scores >= own).sum(axis=0)) / (group.scans + 1)
    return bool(p.min() <= profile.level / len(profile.kinds))


def _splits(
    kept: dict[str, list[Example]], flag_rate: float, thresholds: str, rng: np.random.Generator, count: int = 10
) -> dict[str, float]:
    """Return how the realised rate spreads over other divisions of the same clean scans."""
    every = kept["calibration"] + kept["clean"]
    rates = []
    for _ in range(count):
        order = rng.permutation(len(every))
        learned, judged = np.split(order, [len(kept["calibration"])])
        profile = profile_of([every[i] for i in learned], (), flag_rate=flag_rate, thresholds=thresholds)
        rates.append(float(np.mean([s.flagged for s in _seen(profile, [every[i] for i in judged])])))
    return {"count": count, "mean": float(np.mean(rates)), "least": min(rates), "most": max(rates)}


def _false_stale(profile: LaneProfile, clean: list[Seen], orders: int, rng: np.random.Generator) -> dict[str, Any]:
    stale, evidence = 0, []
    for _ in range(orders):
        watch = Watch(profile)
        for i in rng.permutation(len(clean)):
            watch.take(clean[i])
        stale += bool(watch.stale)
        evidence.append(watch.evidence)
    return {
        "orders": orders, "scans_each": len(clean), "false_stale": stale, "promised_at_most": len(clean) / BOUND,
        "evidence_most": max(evidence), "bound": BOUND,
    }  # fmt: skip


def _delays(
    profile: LaneProfile, clean: list[Seen], drifted: list[Seen], orders: int, rng: np.random.Generator, name: str
) -> dict[str, Any]:
    """Return after how many drifted scans the profile is stale, each time after other clean ones."""
    delays: list[int] = []
    words, missed, early = "", 0, 0
    for _ in range(orders):
        watch = Watch(profile)
        for i in rng.permutation(len(clean))[: int(rng.integers(0, len(clean)))]:
            watch.take(clean[i])
        if watch.stale:
            early += 1
            continue
        # a gain wanders in its own order; where every scan has drifted as much, any order will do
        order = np.arange(len(drifted)) if name == "gain" else rng.permutation(len(drifted))
        delay = next((n for n, i in enumerate(order, 1) if watch.take(drifted[i])), None)
        if delay is None:
            missed += 1
        else:
            delays.append(delay)
            words = watch.stale
    return {
        "orders": orders, "scans": len(drifted), "missed": missed, "stale_before": early,
        "median": float(np.median(delays)) if delays else None, "most": max(delays, default=None),
        "within_200": share(sum(d <= STALE_WITHIN for d in delays), orders - early),
        "flagged": share(sum(s.flagged for s in drifted), len(drifted)),
        "unknown": share(sum(s.unknown for s in drifted), len(drifted)), "words": words,
    }  # fmt: skip


def in_words(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that people read."""

    def said(s: dict[str, Any]) -> str:
        return f"{s['value']:.2%} ({s['low']:.2%}-{s['high']:.2%}, {s['hits']} of {s['of']})"

    r = report
    yield f"SIMULATED lane, {r['image'][0]} x {r['image'][1]} pixels, {r['scans']['calibration']} scans to learn from"
    yield f"flagged of clean scans: promised {r['promised']:.1%}, realised {said(r['realised'])}"
    yield f"  over {r['splits']['count']} other divisions {r['splits']['least']:.2%} to {r['splits']['most']:.2%}"
    for name, s in r["realised_by_stratum"].items():
        yield f"  {name}: {said(s)}"
    yield f"  without a profile, by fixed thresholds: {said(r['uncalibrated'])}"
    yield f"of a look that is not known, reviewed beside the promise: {said(r['unknown'])}"
    for look, s in r["unknown_by_look"].items():
        yield f"  {look}: {said(s)}"
    yield f"flagged of scans with a threat: {said(r['threats_found'])}"
    b = r["bonferroni"]
    yield f"  Bonferroni on the same scores: clean {said(b['realised'])}, with a threat {said(b['threats_found'])}"
    e = r["exchangeable"]
    yield (
        f"stale without cause: {e['false_stale']} of {e['orders']} orders of {e['scans_each']} clean scans, promised "
        f"at most {e['promised_at_most']:.2%} each"
    )
    for name, d in r["drift"].items():
        yield (
            f"drift of {name}: stale after {d['median']} scans in the median, {d['most']} at most, {d['missed']} of "
            f"{d['orders']} never; {said(d['flagged'])} flagged, {said(d['unknown'])} of a look that is not known"
        )
        yield f"  {d['words']}"
