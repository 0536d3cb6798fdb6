"""Plots of the portal's evaluation as PNG files. matplotlib is in the extra `study` and imported here alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner_io.errors import DataError
from scanner_io.model import PortalRecord
from triage.analysis.portal_vendor import gamma_background
from triage.study import evaluate_portal as study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "scanlane": ("scanlane", "#0b6e4f"),
    "vendor": ("vendor rule, NSigma 7.0 (factory)", "#c1121f"),
    "vendor_site": ("vendor rule, NSigma 4.0 (this site)", "#e07a5f"),
    "ksigma": ("k-sigma, no suppression", "#6c757d"),
    "cusum": ("CUSUM", "#3a5a98"),
    "sprt": ("SPRT from entry", "#9d8189"),
}


def need_matplotlib() -> None:
    """Raise DataError where plots cannot be drawn: asked before hours of work and not after them."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise DataError("plots need matplotlib: pip install 'scanlane[study]', or leave out --out") from error
    mpl.use("Agg")


def plot_portal(
    out: Path, null: study.FalseAlarms, thresholds: dict[str, float], trials: study.Trials,
    on_simulated: study.Trials, told: dict[str, study.Told], base: Sequence[PortalRecord], kind: str, rate: float,
) -> list[str]:  # fmt: skip
    """Write the plots into `out` and return their paths; kind: whether `base` is recorded or simulated."""
    need_matplotlib()
    from matplotlib.figure import Figure

    out.mkdir(parents=True, exist_ok=True)
    written = []
    panels = {
        "detection.png": (2, lambda axes: _detection(axes, trials, on_simulated, kind)),
        "detection_by_rate.png": (2, lambda axes: _by_rate(axes, null, trials, on_simulated, kind)),
        "false_alarms.png": (2, lambda axes: _false_alarms(axes, null, thresholds, rate)),
        "points_and_loads.png": (2, lambda axes: _told(axes, told)),
        "passages.png": (2, lambda axes: _passages(axes, base, kind)),
    }
    for name, (columns, draw) in panels.items():
        figure = Figure(figsize=(6.4 * columns, 4.8), dpi=110, layout="constrained")
        draw([figure.add_subplot(1, columns, i + 1) for i in range(columns)])
        figure.savefig(out / name)
        written.append(str(out / name))
    return written


def _detection(axes: list[Axes], trials: study.Trials, on_simulated: study.Trials, base: str) -> None:
    titles = (f"into {trials.hits['scanlane'].shape[1]} {base} passages", "into simulated passages")
    for ax, these, title in zip(axes, (trials, on_simulated), titles, strict=True):
        for name, (label, colour) in METHODS.items():
            hits = these.hits[name]
            of = hits.shape[1] * hits.shape[2]
            found = hits.sum(axis=(1, 2))
            limits = np.array([study.bounds(int(h), of) for h in found])
            ax.fill_between(these.strengths, limits[:, 0], limits[:, 1], color=colour, alpha=0.2, lw=0)
            ax.plot(these.strengths, found / of, color=colour, label=label, lw=2 if name == "scanlane" else 1.3)
        ax.axhline(study.DETECTED, color="black", lw=0.6, ls=":")
        ax.set(xscale="log", xlabel="peak of the source, counts/s", ylabel="probability of detection", title=title)
        ax.set_ylim(0, 1.02)
        ax.set_xticks([150, 200, 300, 500, 1000, 2000], ["150", "200", "300", "500", "1000", "2000"])
        ax.set_xticks([], minor=True)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8, loc="lower right")


def _by_rate(
    axes: list[Axes], null: study.FalseAlarms, trials: study.Trials, on_simulated: study.Trials, base: str
) -> None:
    """Detection at one strength against the false alarm rate, each method at the threshold that gives it."""
    clean = {**null.peers, "scanlane": -np.log10(null.family)}
    rates = np.logspace(np.log10(10 / len(null.family)), -1, 40)
    for ax, these, title in zip(axes, (trials, on_simulated), (base, "simulated"), strict=True):
        for name, scores in these.scores.items():
            label, colour = METHODS[name] if name != "vendor" else ("vendor rule, any NSigma", "#c1121f")
            thresholds = np.quantile(clean[name], 1 - rates, method="higher")
            found = (scores.ravel() >= thresholds[:, np.newaxis]).sum(axis=1)
            limits = np.array([study.bounds(int(h), scores.size) for h in found])
            ax.fill_between(rates, limits[:, 0], limits[:, 1], color=colour, alpha=0.2, lw=0)
            ax.plot(rates, found / scores.size, color=colour, label=label, lw=2 if name == "scanlane" else 1.3)
        ax.set(xscale="log", xlabel="false alarms per occupancy", ylabel="probability of detection")
        ax.set_title(f"{study.ROC_STRENGTH} counts/s into {title} passages")
        ax.set_ylim(0, 1.02)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8, loc="lower right")


def _false_alarms(axes: list[Axes], null: study.FalseAlarms, thresholds: dict[str, float], rate: float) -> None:
    """Left: realised against promised rate of the family. Right: peers' scores and the thresholds set."""
    n = len(null.family)
    promised = np.logspace(-3.5, -1, 30)
    hits = [int((null.family <= p).sum()) for p in promised]
    limits = np.array([study.bounds(h, n) for h in hits])
    ax = axes[0]
    ax.fill_between(promised, limits[:, 0], limits[:, 1], color="#0b6e4f", alpha=0.25, lw=0, label="exact 95 % bounds")
    ax.plot(promised, np.array(hits) / n, color="#0b6e4f", label="realised")
    ax.plot(promised, promised, color="black", lw=0.8, ls="--", label="promised")
    ax.axvline(rate, color="black", lw=0.6, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="promised rate per occupancy", ylabel="realised rate")
    ax.set_title(f"{n} simulated passages without a source")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    for name, scores in null.peers.items():
        label, colour = METHODS[name]
        ordered = np.sort(scores)[::-1]
        axes[1].plot(ordered, np.arange(1, n + 1) / n, color=colour, label=label)
        axes[1].axvline(thresholds[name], color=colour, lw=0.8, ls=":")
    axes[1].axhline(rate, color="black", lw=0.6, ls=":")
    axes[1].set(yscale="log", xlabel="score; dotted: threshold", ylabel="share of clean passages that reach it")
    axes[1].set_xlim(left=-5)
    axes[1].set_title("peers")
    axes[1].legend(fontsize=8)
    axes[1].grid(alpha=0.3)


def _told(axes: list[Axes], told: dict[str, study.Told]) -> None:
    from triage.analysis.portal_shape import MIN_GAIN

    edges = np.linspace(0, 3.6, 50).tolist()
    for name, colour in (("points", "#c1121f"), ("loads", "#0b6e4f")):
        axes[0].hist(np.log10(np.maximum(told[name].gains, 1.0)), edges, color=colour, alpha=0.6, label=name)
    axes[0].axvline(np.log10(MIN_GAIN), color="black", lw=0.8, ls=":")
    axes[0].set(xlabel="log10 of chi-square that a load saves over a point", ylabel="simulated passages")
    axes[0].set_title("loads and points of equal peak")
    axes[0].legend(fontsize=8)
    loads = told["loads"]
    right = np.array([s == "distributed" for s in loads.shapes])
    axes[1].scatter(loads.length_mm[right] / 1000, loads.gains[right] + 1, s=6, color="#0b6e4f", label="distributed")
    axes[1].scatter(loads.length_mm[~right] / 1000, loads.gains[~right] + 1, s=8, color="#c1121f", label="not told")
    axes[1].axhline(MIN_GAIN, color="black", lw=0.8, ls=":")
    axes[1].set(yscale="log", xlabel="length of the load, m", ylabel="chi-square saved, + 1", title="loads by length")
    axes[1].legend(fontsize=8)


def _passages(axes: list[Axes], base: Sequence[PortalRecord], kind: str) -> None:
    """A passage of the base and a simulated one, with and without a source of 350 counts/s."""
    from triage.study.calibrate_portal import EVALUATION, stream
    from triage.study.portal_traffic import Traffic, clean_passages, inject

    simulated = clean_passages(stream(1, EVALUATION + 5, 0), 1, Traffic()).record(0)
    for ax, record, title in zip(axes, (base[0], simulated), (f"a {kind} one", "a simulated one"), strict=True):
        background = gamma_background(record)
        assert background is not None
        rng = stream(1, EVALUATION + 5, 1)
        one = study.points_in(record, rng, 1)._replace(counts_per_s=np.full(1, 350.0))
        with_source = inject(rng, record.gamma, study.speed_of(record), one)[0]
        t = np.arange(len(record.gamma)) * record.gamma_interval_s
        ax.step(t, with_source.sum(axis=1), where="post", color="#c1121f", label="with 350 counts/s injected")
        ax.step(t, record.gamma.sum(axis=1), where="post", color="#3a5a98", label="without")
        ax.axhline(background.sum() * record.gamma_interval_s, color="black", lw=0.8, ls="--", label="background")
        ax.set(xlabel="s", ylabel="gamma counts per interval, all detectors", title=title)
        ax.legend(fontsize=8)


def plain(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the report as rows of a table for a person."""
    far, details = report["far_per_occupancy"], report["details"]
    rows = [
        ("false alarms", f"{far['realised']:.2e} per occupancy ({far['low']:.1e} to {far['high']:.1e}), "
         f"promised {far['promised']:g}; {details['passes']} simulated passages"),
        ("detection on", details["detection_on"]),
        ("", details["clean_passes_cannot_show"]),
    ]  # fmt: skip
    for name, s in report["strength_95"].items():
        value = "more than tried" if s["value"] is None else f"{s['value']:.0f} counts/s ({s['low']} to {s['high']})"
        rows.append((f"95 % at, {name}", value))
    ratio = details["scanlane_over"]["vendor"]
    rows.append(("over the vendor's", f"{ratio['value']} ({ratio['low']} to {ratio['high']})"))
    for name, s in details["oracle"].items():
        rows.append((f"bound, {name.replace('_', ' ')}", f"{s['value']} counts/s ({s['low']} to {s['high']})"))
    shapes = details["norm_vs_point"]
    rows.append(("load from point", f"{100 * report['norm_vs_point']:.1f} % told ({shapes['both']['of']} passages)"))
    real = details["recorded_norm_called_distributed"]
    if real is not None:
        rows.append(("recorded NORM", f"{real['hits']} of {real['of']} called distributed"))
    faults, day = details["faults"], details["day"]
    rows.append(
        ("occupancies", f"{report['missed']} missed, {report['merged']} merged, {report['doubled']} doubled in "
         f"{faults['passes']} simulated passages with faults (rate below {faults['upper_95']:.1e}, 95 %)")
    )  # fmt: skip
    rows.append(
        ("CPU a day", f"{report['cpu_s_per_day']} s: {day['lines']} simulated lines read in {day['reading']} s, "
         f"{day['passages']} passages judged in {day['judging']} s")
    )  # fmt: skip
    return [*rows, *(("plot", p) for p in details.get("plots", []))]
