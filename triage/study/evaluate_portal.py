"""How well the portal's judgement finds sources, at a false alarm rate that is kept, beside other ways to do it.

Sources are injected as Poisson counts into recorded passages without one, and into simulated ones; the false alarm rate
is measured on simulated passages without a source, which no constant was made with. Peers with a free threshold get the
one that gives them the promised rate on the same passages, and our p-value is also read there, beside its own promise;
the vendor's rule stands at its factory setting. Every share has exact bounds, every strength an interval from drawing
passages anew.

What to keep in mind. 25 recorded passages of one truck without an alarm cannot show a false alarm rate below 11 %
(95 %), so they serve for detection only. The kinds of shadow of the baseline were chosen on simulated passages, but an
earlier one of them among some twenty settings by other injections into the recorded ones; that a front casts a shadow
of its own was added because two of the recorded passages scored high at theirs; and the spread of the simulated shadow
over the detectors was set by them. Detection on them is flattered by that, detection on simulated passages is not.
Simulated passages have no energy windows, and injected sources add none to the recorded ones: the energy test is no
part of the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from scanner_io import driver as drivers
from scanner_io.errors import DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.formats.portal_daily import read_daily_file
from scanner_io.model import NANOSECONDS, Occupancy, PortalRecord
from triage.analysis.portal import PortalProfile, judge_portal
from triage.analysis.portal_shape import form_of
from triage.analysis.portal_tests import SHARES, assess
from triage.study.calibrate_portal import BLIND_EVERY, EVALUATION, judge_all, parts, stream
from triage.study.portal_faults import count_occupancies
from triage.study.portal_oracle import STRENGTHS as ORACLE_STRENGTHS
from triage.study.portal_oracle import recorded_bound, simulated_bounds
from triage.study.portal_peers import PEERS
from triage.study.portal_traffic import (
    BUFFERED,
    HOLD_IN,
    INTERVAL_S,
    Load,
    Traffic,
    clean_passages,
    draw_norm,
    draw_passages,
    draw_points,
    draw_vehicles,
    inject,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[], None]

FACTORY_NSIGMA, SITE_NSIGMA = 7.0, 4.0
"""The vendor's default, and about what the portal of the recorded passages stands at."""
DETECTED = 0.95
STRENGTHS = (*(round(150 * 1.12**k) for k in range(19)), 1450, 1800, 2300, 3000, 4000)
"""Peaks of the injected sources, counts/s of all detectors. The last are for the sequential test, which needs most."""
ROC_STRENGTH = STRENGTHS[7]
"""Strength at which detection is plotted against the false alarm rate, 332 counts/s."""
BOOTSTRAP = 400
CLEAN_LOG, NORM_LOG = "S2-C0-NONE.csv", "S2-C3-NORM2.csv"
NORM_LENGTH_MM = 4000.0
"""Shortest natural load of the comparison with points: shorter ones are lumps, and are told by length in `details`."""
NORM_COUNTS = (1000.0, 4000.0)
"""Peaks of the loads and points that are told apart."""
DAY_PASSAGES, TRANSIT_S = 700, 12.0
"""Vehicles of one operational day of a real lane, and about how long one of them takes."""
DAY_UTC_NS = 1_767_571_200 * NANOSECONDS


class Share(NamedTuple):
    """A share of passages with exact 95 % bounds."""

    hits: int
    of: int

    def plain(self) -> dict[str, Any]:
        """Return it for a report."""
        low, high = bounds(self.hits, self.of)
        value = round(self.hits / max(self.of, 1), 6)
        return {"value": value, "low": round(low, 6), "high": round(high, 6), "hits": self.hits, "of": self.of}


class Trials(NamedTuple):
    """Which injections were found: `hits[name]` is `(strengths, passages, injections) bool`.

    scores : `(passages, injections)` by method at ROC_STRENGTH, the higher the surer; ours is the p-value's logarithm
    """

    strengths: tuple[int, ...]
    hits: dict[str, npt.NDArray[np.bool_]]
    scores: dict[str, Floats]


def bounds(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided bounds of a share. Source: Clopper and Pearson, Biometrika 26 (1934) 404."""
    rest = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, of - hits + 1, rest))
    high = 1.0 if hits >= of else float(betaincinv(hits + 1, of - hits, 1 - rest))
    return low, high


def default_logs() -> Path | None:
    """Return the folder of recorded passages beside the project, None if it is not there."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "portal"
    return folder if folder.is_dir() else None


# --------------------------------------------------------------------------------------------------------------
# False alarms


def false_alarms_of_part(seed: int, part: int, count: int) -> FalseAlarms:
    """Return what passages without a source are called; one part in BLIND_EVERY is judged without its speeds too."""
    passages = clean_passages(stream(seed, EVALUATION, part), count, Traffic())
    profile = PortalProfile()
    family, by_test = [], {name: np.full(count, np.nan) for name in SHARES}
    for i, assessed in enumerate(judge_all(passages, profile)):
        family.append(assessed.family_p())
        for e in assessed.evidence:
            by_test[e.test][i] = assessed.family_of(e)
    peers = {name: peer(passages.gamma, passages.intervals, passages.background) for name, peer in PEERS.items()}
    vehicles = passages.vehicles
    passed = {
        "depth": vehicles.depth, "speed_kmh": vehicles.speed_mm_s * 3.6 / 1000, "length_m": vehicles.length_mm / 1000,
        "seconds": vehicles.length_mm / vehicles.speed_mm_s, "background": passages.background.sum(axis=1),
    }  # fmt: skip
    blind = [a.family_p() for a in judge_all(passages, profile, blind=True)] if part % BLIND_EVERY == 0 else []
    return FalseAlarms(np.array(family), peers, by_test, passed, np.array(blind))


class FalseAlarms(NamedTuple):
    """Scores on passages without a source.

    family : p-values; by_test : the family's of each test alone, NaN where it was not made
    passed : what the vehicles were like, by name; blind : p-values of the family where no speed was told
    """

    family: Floats
    peers: dict[str, Floats]
    by_test: dict[str, Floats]
    passed: dict[str, Floats]
    blind: Floats

    def by_stratum(self, rate: float) -> dict[str, dict[str, Any]]:
        """Return the share of false alarms among the lowest, middle and highest third of every property of passages."""
        found = {}
        for name, values in self.passed.items():
            edges = np.quantile(values, (0.0, 1 / 3, 2 / 3, 1.0))
            for k in range(3):
                these = self.family[(values >= edges[k]) & (values <= edges[k + 1])]
                label = f"{name} {edges[k]:.3g} to {edges[k + 1]:.3g}"
                found[label] = Share(int((these <= rate).sum()), len(these)).plain()
        return found

    def thresholds(self, rate: float) -> dict[str, float]:
        """Return the scores that this share of the passages reaches, the vendor's own threshold, and our p-value."""
        found = {n: float(np.quantile(s, 1 - rate, method="higher")) for n, s in self.peers.items()}
        ours = float(np.quantile(self.family, rate, method="lower"))
        return found | {"vendor": FACTORY_NSIGMA, "vendor_same_rate": found["vendor"], "scanlane_same_rate": ours}


def false_alarms(passes: int, seed: int, progress: Progress, pool: Executor | None) -> FalseAlarms:
    """Judge `passes` simulated passages without a source."""
    jobs = [(seed, part, count) for part, count in parts(passes)]
    found = []
    for result in (pool.map if pool else map)(false_alarms_of_part, *zip(*jobs, strict=True)):
        found.append(result)
        progress()
    return FalseAlarms(
        np.concatenate([f.family for f in found]),
        {name: np.concatenate([f.peers[name] for f in found]) for name in PEERS},
        {name: np.concatenate([f.by_test[name] for f in found]) for name in SHARES},
        {name: np.concatenate([f.passed[name] for f in found]) for name in found[0].passed},
        np.concatenate([f.blind for f in found]),
    )


# --------------------------------------------------------------------------------------------------------------
# Detection


def points_in(record: PortalRecord, rng: np.random.Generator, count: int) -> Load:
    """Return points of 1 count/s anywhere on the vehicle of a record but its first 2.5 m, where nothing is carried."""
    rear = (len(record.gamma) - BUFFERED - HOLD_IN) * INTERVAL_S * speed_of(record)
    x = rng.uniform(min(2500.0, rear / 2), rear, count)
    return Load(
        x, x, rng.uniform(-1100, 1100, count), rng.uniform(700, 3200, count),
        rng.uniform(*Traffic().pillars_mm, count), np.ones(count),
    )  # fmt: skip


def speed_of(record: PortalRecord) -> float:
    """Return mm/s; 8 km/h where it was not told."""
    return (record.speed_kmh or 8.0) / 3.6 * 1000


def found_in_record(
    record: PortalRecord, seed: int, part: int, injections: int, strengths: Sequence[int],
    thresholds: dict[str, float], rate: float,
) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, Floats]]:  # fmt: skip
    """Return which injections into one record are found, `(strengths, injections)` by method, and `Trials.scores`."""
    rng = stream(seed, EVALUATION + 1, part)
    one = points_in(record, rng, injections)
    assert record.gamma_background is not None
    background = np.tile(record.gamma_background, (injections, 1))
    intervals = np.full(injections, len(record.gamma))
    hits: dict[str, list[npt.NDArray[np.bool_]]] = {
        name: [] for name in ("scanlane", *PEERS, "vendor_site", "vendor_same_rate", "scanlane_same_rate")
    }
    scores: dict[str, Floats] = {}
    for strength in strengths:
        counts = inject(rng, record.gamma, speed_of(record), one._replace(counts_per_s=np.full(injections, strength)))
        for name, peer in PEERS.items():
            score = peer(counts, intervals, background)
            if strength == ROC_STRENGTH:
                scores[name] = score
            hits[name].append(score >= thresholds[name])
            if name == "vendor":
                hits["vendor_site"].append(score >= SITE_NSIGMA)
                hits["vendor_same_rate"].append(score >= thresholds["vendor_same_rate"])
        p = family_p_values(record, counts)
        if strength == ROC_STRENGTH:
            scores["scanlane"] = -np.log10(p)
        hits["scanlane"].append(p <= rate)
        hits["scanlane_same_rate"].append(p <= thresholds["scanlane_same_rate"])
    return {name: np.array(rows) for name, rows in hits.items()}, scores


def family_p_values(record: PortalRecord, counts: Ints) -> Floats:
    """Return the family's p-value of every one of `(injections, intervals, 4)` counts in the place of the record's."""
    profile = PortalProfile()
    return np.array(
        [
            assess(
                msgspec.structs.replace(record, gamma=np.ascontiguousarray(c)),
                neutron_background_s=profile.neutron_background_s, neutron_showers=profile.neutron_showers,
            ).family_p()
            for c in counts
        ]
    )  # fmt: skip


def detection(
    records: Sequence[PortalRecord], seed: int, injections: int, thresholds: dict[str, float], rate: float,
    progress: Progress, pool: Executor | None,
) -> Trials:  # fmt: skip
    """Inject sources of all strengths into every record."""
    n = len(records)
    jobs = (
        records, [seed] * n, range(n), [injections] * n, [STRENGTHS] * n, [thresholds] * n, [rate] * n,
    )  # fmt: skip
    each = []
    for found in (pool.map if pool else map)(found_in_record, *jobs):
        each.append(found)
        progress()
    hits, scores = each[0]
    return Trials(
        STRENGTHS,
        {name: np.stack([h[name] for h, _ in each], axis=1) for name in hits},
        {name: np.stack([s[name] for _, s in each]) for name in scores},
    )


def strength_at(strengths: Sequence[int], pod: Floats, wanted: float = DETECTED) -> float | None:
    """Return the strength at which `pod` reaches `wanted`, None if it never does.

    The curve is made monotonic by pooling neighbours (isotonic regression) and read linearly in the log of strength.
    """
    rising = isotonic(pod)
    above = np.flatnonzero(rising >= wanted)
    if above.size == 0:
        return None
    k = int(above[0])
    if k == 0:
        return float(strengths[0])
    low, high = np.log(strengths[k - 1]), np.log(strengths[k])
    return float(np.exp(low + (wanted - rising[k - 1]) / (rising[k] - rising[k - 1]) * (high - low)))


def isotonic(values: Floats) -> Floats:
    """Return the rising sequence nearest to `values`, by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for v in values:
        blocks.append([float(v), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (b, m), (a, n) = blocks.pop(), blocks.pop()
            blocks.append([(a * n + b * m) / (n + m), n + m])
    return np.concatenate([np.full(int(n), v) for v, n in blocks])


def draws(trials: Trials, seed: int) -> dict[str, Floats]:
    """Return the strength for 95 % detection by method, `(BOOTSTRAP + 1,)`: as found, then of samples drawn anew.

    Passages are drawn with replacement, and injections within them, the same for all methods. Infinite where never.
    """
    rng = stream(seed, EVALUATION + 2, 0)
    _, passages, injections = next(iter(trials.hits.values())).shape
    found: dict[str, list[float]] = {
        name: [strength_at(trials.strengths, hits.mean(axis=(1, 2))) or np.inf] for name, hits in trials.hits.items()
    }
    for _ in range(BOOTSTRAP):
        p = np.repeat(rng.integers(0, passages, passages), injections)
        k = rng.integers(0, injections, passages * injections)
        for name, hits in trials.hits.items():
            found[name].append(strength_at(trials.strengths, hits[:, p, k].mean(axis=1)) or np.inf)
    return {name: np.array(values) for name, values in found.items()}


def _with_interval(values: Floats, digits: int) -> dict[str, float | None]:
    """Return the first value with the 95 % interval of the others; None stands for infinite."""
    low, high = np.quantile(values[1:], (0.025, 0.975), method="nearest")
    rounded = [round(float(v), digits) if np.isfinite(v) else None for v in (values[0], low, high)]
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def strengths_95(drawn: dict[str, Floats]) -> dict[str, dict[str, float | None]]:
    """Return the strength for 95 % detection by method, with its interval."""
    return {name: _with_interval(values, 1) for name, values in drawn.items()}


def over_peers(drawn: dict[str, Floats], ours: str) -> dict[str, dict[str, float | None]]:
    """Return our strength for 95 % detection over each peer's, with its interval, on the same passages and sources."""
    peers = (name for name in drawn if not name.startswith("scanlane"))
    return {name: _with_interval(drawn[ours] / drawn[name], 3) for name in peers}


def oracle_bounds(records: Sequence[PortalRecord], seed: int, injections: int, rate: float) -> dict[str, Any]:
    """Return the strength for 95 % detection that detectors need who know what none can, see `portal_oracle`."""
    rng = stream(seed, EVALUATION + 5, 0)
    count, each = 5 * injections, 8
    known, unknown = simulated_bounds(rng, count, each, Traffic())
    sources = {"simulated_shadow_known": known, "simulated_ripple_unknown": unknown}
    # As shallow as the recorded vehicle's shadow, which is outside of what passes at other sites.
    shallow = Traffic(depth=(0.2, 0.02), depth_limits=(0.1, 0.3), speed_kmh=(7.0, 9.0))
    sources["simulated_shallow_ripple_unknown"] = simulated_bounds(rng, count, each, shallow)[1]
    if records:
        sources["recorded_shadow_known"] = recorded_bound(rng, records, injections)
    found = {}
    for name, source in sources.items():
        passages = source.log_ratio.shape[1]
        drawn = [source.detection(rate)]
        drawn += [source.detection(rate, rng.integers(0, passages, (passages,))) for _ in range(BOOTSTRAP // 4)]
        found[name] = _with_interval(np.array([strength_at(ORACLE_STRENGTHS, d) or np.inf for d in drawn]), 1)
    return found


# --------------------------------------------------------------------------------------------------------------
# Loads and points


class Told(NamedTuple):
    """Loads and points of equal peak, and what they were called."""

    counts_per_s: Floats
    length_mm: Floats
    gains: Floats
    shapes: list[str]


def tell_apart(count: int, seed: int, *, points: bool) -> Told:
    """Judge the shape of natural loads, or of points of the same peaks on the same vehicles."""
    rng = stream(seed, EVALUATION + 3, 0)
    vehicles = draw_vehicles(rng, count, Traffic())
    counts_per_s = np.exp(rng.uniform(float(np.log(NORM_COUNTS[0])), float(np.log(NORM_COUNTS[1])), count))
    load = draw_norm(rng, vehicles, counts_per_s)
    length = load.end_mm - load.first_mm
    if points:
        load = draw_points(rng, vehicles, counts_per_s)
    passages = draw_passages(rng, vehicles, Traffic(), (load,))
    forms = [form_of(record) for record in passages.records()]
    return Told(counts_per_s, length, np.array([f.gain for f in forms]), [f.shape for f in forms])


def _norm_vs_point(loads: Told, points: Told) -> dict[str, Any]:
    long = loads.length_mm >= NORM_LENGTH_MM
    right_loads = [s == "distributed" for s in loads.shapes]
    right_points = [s == "point" for s in points.shapes]
    both = int(np.sum(np.array(right_loads)[long])) + int(np.sum(np.array(right_points)[long]))
    lengths = {}
    for low, high in ((0, 2), (2, 4), (4, 6), (6, 9), (9, 16)):
        chosen = (loads.length_mm >= low * 1000) & (loads.length_mm < high * 1000)
        lengths[f"{low} to {high} m"] = Share(int(np.array(right_loads)[chosen].sum()), int(chosen.sum())).plain()
    return {
        "both": Share(both, 2 * int(long.sum())).plain(),
        "loads_called_distributed": Share(int(np.array(right_loads)[long].sum()), int(long.sum())).plain(),
        "points_called_point": Share(int(np.array(right_points)[long].sum()), int(long.sum())).plain(),
        "loads_by_length": lengths,
        "peaks_counts_per_s": list(NORM_COUNTS),
        "shortest_load_mm": NORM_LENGTH_MM,
    }


# --------------------------------------------------------------------------------------------------------------
# The whole


def evaluate_portal(
    *, passes: int = 30_000, injections: int = 40, seed: int = 1, logs: Path | None = None, out: Path | None = None,
    passes_of_faults: int = 2000, progress: Progress | None = None, pool: Executor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the evaluation and return its report, ready for JSON.

    passes : simulated passages without a source
    injections : sources of every strength into every recorded passage, and one into so many simulated ones
    logs : folder of recorded passages; without it everything is simulated and says so
    out : folder for the plots, which need matplotlib
    passes_of_faults : simulated passages with faults injected, in which missed, merged and doubled ones are counted
    progress : called after every part, `steps()` times

    Raises DataError for impossible numbers and for logs that do not hold what they should.
    """
    if passes < 100 or injections < 2 or passes_of_faults < 1:
        raise DataError(
            f"evaluate portal: {passes} passes, {injections} injections, {passes_of_faults} passes of faults; give at "
            "least 100, 2 and 1"
        )
    if out is not None:
        # Here, because that module takes this one's results.
        from triage.study import plot_portal as plots

        plots.need_matplotlib()
    done = progress or (lambda: None)
    rate = PortalProfile().far_per_occupancy
    null = false_alarms(passes, seed, done, pool)
    thresholds = null.thresholds(rate)
    real = _records(logs / CLEAN_LOG) if logs is not None else []
    simulated_base = clean_passages(stream(seed, EVALUATION + 4, 0), 25, Traffic())
    base = real or list(simulated_base.records())
    trials = detection(base, seed, injections, thresholds, rate, done, pool)
    drawn = draws(trials, seed)
    strengths = strengths_95(drawn)
    on_simulated = trials
    if real:
        on_simulated = detection(
            list(simulated_base.records()), seed, max(injections // 2, 2), thresholds, rate, done, pool
        )
    told = {name: tell_apart(max(passes // 30, 50), seed, points=name == "points") for name in ("loads", "points")}
    done()
    shapes = _norm_vs_point(told["loads"], told["points"])
    far = Share(int((null.family <= rate).sum()), passes).plain()
    faults = count_occupancies(passes_of_faults, seed)
    done()
    oracle = oracle_bounds(real, seed, injections, rate)
    done()
    with TemporaryDirectory() as folder:
        day = cpu_of_a_day(Path(folder), seed)
    done()
    report = {
        "far_per_occupancy": {
            "promised": rate, "realised": far["value"], "low": far["low"], "high": far["high"],
        },
        "strength_95": {name: strengths[name] for name in ("scanlane", "vendor", "ksigma", "cusum", "sprt")},
        "norm_vs_point": shapes["both"]["value"],
        "missed": faults.missed, "merged": faults.merged, "doubled": faults.doubled,
        "cpu_s_per_day": round(day["reading"] + day["judging"], 3),
        "details": {
            "seed": seed, "passes": passes, "injections": injections,
            "detection_on": f"{len(real)} recorded passages of {CLEAN_LOG}" if real else "simulated passages only",
            "clean_passes_cannot_show": _cannot_show(len(base)),
            "clean_recorded_passes_with_a_finding": Share(_findings_in(real), len(real)).plain() if real else None,
            "recorded_norm_called_distributed": _real_norm(logs),
            "vendor_at_site_setting": {"nsigma": SITE_NSIGMA, **strengths["vendor_site"]},
            "vendor_at_same_rate": {"nsigma": round(thresholds["vendor_same_rate"], 3),
                                    **strengths["vendor_same_rate"]},
            "scanlane_at_same_rate": {"p_value": thresholds["scanlane_same_rate"], **strengths["scanlane_same_rate"]},
            "scanlane_over": over_peers(drawn, "scanlane"),
            "scanlane_over_at_same_rate": over_peers(drawn, "scanlane_same_rate"),
            "strength_95_simulated": strengths_95(draws(on_simulated, seed)),
            "thresholds": {k: round(v, 5) for k, v in thresholds.items()},
            "vendor_far": Share(int((null.peers["vendor"] >= FACTORY_NSIGMA).sum()), passes).plain(),
            "far_by_test": {
                name: Share(int((p <= rate).sum()), int(np.isfinite(p).sum())).plain()
                for name, p in null.by_test.items()
            },
            "far_by_stratum": null.by_stratum(rate),
            "far_without_speed": Share(int((null.blind <= rate).sum()), len(null.blind)).plain(),
            "oracle": oracle,
            "norm_vs_point": shapes,
            "faults": {
                "passes": faults.passes, "fault_share": faults.fault_share, "simulated": True,
                "upper_95": round(bounds(faults.missed + faults.merged + faults.doubled, faults.passes, 0.90)[1], 8),
                "lines_lost": faults.lines_lost, "repeated": faults.repeated, "phantom": faults.phantom,
            },
            "day": day,
        },
    }  # fmt: skip
    if out is not None:
        report["details"]["plots"] = plots.plot_portal(
            out, null, thresholds, trials, on_simulated, told, base, "recorded" if real else "simulated", rate
        )
    return report


def steps(passes: int, *, real: bool) -> int:
    """Return how often `evaluate_portal` calls its progress."""
    return len(parts(passes)) + 25 * (2 if real else 1) + 4


def _records(path: Path) -> list[PortalRecord]:
    with ForeignFiles() as readers:
        events = list(readers.daily(path))
    records = [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]
    usable = [r for r in records if r.gamma_background is not None and r.gamma.shape[1] == 4]
    if not usable:
        raise DataError(f"{path}: {len(records)} passages, none with four detectors and a background; expected some")
    return usable


def _cannot_show(passes: int) -> str:
    high = bounds(0, passes, 0.90)[1]
    return f"{passes} passages without a finding cannot show a rate below {100 * high:.0f} % (95 %)"


def _findings_in(records: Sequence[PortalRecord]) -> int:
    profile = PortalProfile()
    return sum(any(f.tier != "note" for f in judge_portal(r, profile).findings) for r in records)


def _real_norm(logs: Path | None) -> dict[str, Any] | None:
    if logs is None or not (logs / NORM_LOG).is_file():
        return None
    forms = [form_of(r) for r in _records(logs / NORM_LOG)]
    return Share(sum(f.shape == "distributed" for f in forms), len(forms)).plain()


def cpu_of_a_day(folder: Path, seed: int, passages: int = DAY_PASSAGES) -> dict[str, Any]:
    """Return the CPU seconds that a simulated day takes: `passages` vehicles in 24 h, read from a daily file, judged.

    folder : the file is written there, before the clock is started
    """
    simulated = drivers.load("simulated")
    gap_s = 86_400 / DAY_PASSAGES - TRANSIT_S
    traffic = simulated.Traffic(seed=seed, passes=passages, gap_s=gap_s)
    path = folder / "simulated.csv"
    simulated.write_daily_file(path, traffic, start_utc_ns=DAY_UTC_NS)
    profile = PortalProfile()
    began = time.process_time()
    records = read_daily_file(path)
    read = time.process_time()
    for record in records:
        judge_portal(record, profile)
    judged = time.process_time()
    return {
        "reading": round(read - began, 3), "judging": round(judged - read, 3), "passages": len(records),
        "lines": path.read_bytes().count(b"\n"), "simulated": True,
    }  # fmt: skip
