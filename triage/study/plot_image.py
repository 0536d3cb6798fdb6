"""Plots of the image evaluation as PNG files. matplotlib is in the extra `study` and imported here alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triage.study.evaluate_image import BARS_KINDS, CNR_EDGES, Evaluation
from triage.study.image_archive import load, through_chain
from triage.study.image_samples import inserted_image
from triage.study.image_statistics import POINTS, froc
from triage.study.insertions import KINDS
from triage.study.plot_portal import need_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array: TypeAlias = NDArray[Any]

COLOURS = {"naive": "#6c757d", "untrained": "#3a5a98", "scanlane": "#0b6e4f"}
GALLERY = (3, 6)
"""Rows and columns of the gallery, of hits and of misses each."""


def plot_image(out: Path, e: Evaluation) -> list[str]:
    """Write the plots into `out` and return their paths."""
    need_matplotlib()
    from matplotlib.figure import Figure

    out.mkdir(parents=True, exist_ok=True)
    panels: dict[str, tuple[int, Any]] = {
        "pod_by_false_alarms.png": (2, _by_false_alarms),
        "pod_by_contrast.png": (2, _by_contrast),
        "pod_by_kind.png": (2, _by_kind),
        "false_alarms.png": (2, _false_alarms),
    }
    written = []
    for name, (columns, draw) in panels.items():
        figure = Figure(figsize=(6.4 * columns, 4.8), dpi=110, layout="constrained")
        draw([figure.add_subplot(1, columns, i + 1) for i in range(columns)], e)
        figure.savefig(out / name)
        written.append(str(out / name))
    best = e.systems[-1].name
    for name, hits in (("hits.png", True), ("misses.png", False)):
        figure = Figure(figsize=(15, 7.5), dpi=100, layout="constrained")
        axes = [figure.add_subplot(*GALLERY, i + 1) for i in range(GALLERY[0] * GALLERY[1])]
        figure.suptitle(f"{best} at 1 false region per image: {'found' if hits else 'not found'} (drawn by lot)")
        _gallery(axes, e, best, hits=hits)
        figure.savefig(out / name)
        written.append(str(out / name))
    return written


def _colour(name: str) -> str:
    return COLOURS.get(name, "#c1121f")


def _bars(e: Evaluation) -> Array:
    return np.asarray(e.table.visible() & np.isin(e.table.kind, BARS_KINDS))


def _by_false_alarms(axes: Sequence[Axes], e: Evaluation) -> None:
    """Share found against false regions per image: all, and inside cargo; marks are the operating points."""
    t = e.table
    for ax, chosen, title in (
        (axes[0], _bars(e), ", ".join(BARS_KINDS)),
        (axes[1], _bars(e) & t.in_cargo & (t.kind != "slab"), "the same without slab, inside cargo (T .05-.6)"),
    ):
        for system in e.systems:
            name = system.name
            rates, pod = froc(e.clean[name], t.score[name][chosen], t.chance[name][chosen])
            ax.plot(rates, pod, color=_colour(name), label=name)
            for point in ("fa01", "fa1"):
                found = e.share(name, point, chosen)
                rate = float(e.false_alarms(name, point).mean())
                if found.value is not None and found.low is not None and found.high is not None and rate > 0:
                    error = [[found.value - found.low], [found.high - found.value]]
                    ax.errorbar([rate], [found.value], yerr=error, fmt="o", color=_colour(name), capsize=3)
        ax.set(xscale="log", xlabel="false regions per clean image", ylabel="share of insertions found", ylim=(0, 1))
        ax.set_title(f"{title}\n{int(chosen.sum())} insertions, {len(e.archive.sources)} scans", fontsize=10)
        ax.grid(alpha=0.3, which="both")
        ax.legend()


def _grouped(ax: Axes, e: Evaluation, parts: dict[str, Array], point: str) -> None:
    """Bars side by side, one group per part and one bar per system, with intervals."""
    width = 0.8 / len(e.systems)
    for k, system in enumerate(e.systems):
        found = [e.share(system.name, point, chosen) for chosen in parts.values()]
        x = np.arange(len(parts)) + (k - (len(e.systems) - 1) / 2) * width
        value = np.array([f.value or 0.0 for f in found])
        error = [
            [(f.value or 0.0) - (f.low or 0.0) for f in found], [(f.high or 0.0) - (f.value or 0.0) for f in found],
        ]  # fmt: skip
        ax.bar(x, value, width, color=_colour(system.name), label=system.name)
        ax.errorbar(x, value, yerr=np.maximum(error, 0), fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    ax.set_xticks(range(len(parts)), [f"{name}\n{int(chosen.sum())}" for name, chosen in parts.items()])
    what, rate = POINTS[point]
    told = f"{rate:g} false {what} per image" if what == "regions" else f"{100 * rate:g} % of clean images"
    ax.set(ylim=(0, 1), ylabel="share of insertions found", title=f"at {told}")
    ax.grid(alpha=0.3, axis="y")
    ax.legend()


def _by_contrast(axes: Sequence[Axes], e: Evaluation) -> None:
    t = e.table
    parts = {
        f"{a:g}-{b:g}" if np.isfinite(b) else f"> {a:g}": _bars(e) & (t.cnr >= a) & (t.cnr < b)
        for a, b in itertools.pairwise(CNR_EDGES)
    }
    for ax, point in zip(axes, ("fa1", "far5"), strict=True):
        _grouped(ax, e, parts, point)
        ax.set_xlabel("change over the spread of the background around it")


def _by_kind(axes: Sequence[Axes], e: Evaluation) -> None:
    parts: dict[str, Array] = {kind: e.table.visible() & (e.table.kind == kind) for kind in KINDS}
    for ax, point in zip(axes, ("fa1", "far5"), strict=True):
        _grouped(ax, e, parts, point)


def _false_alarms(axes: Sequence[Axes], e: Evaluation) -> None:
    """False regions at 1 per image by group of scans, and what the thresholds of the folds realise."""
    groups = sorted({s.group for s in e.archive.sources})
    of = np.array([groups.index(s.group) for s in e.archive.sources])
    width = 0.8 / len(e.systems)
    for k, system in enumerate(e.systems):
        alarms = e.false_alarms(system.name, "fa1")
        mean = [float(alarms[of == g].mean()) for g in range(len(groups))]
        axes[0].barh(np.arange(len(groups)) + k * width, mean, width, color=_colour(system.name), label=system.name)
        counts = np.bincount(alarms.astype(int), minlength=11)[:11]
        axes[1].plot(np.arange(11), counts, "o-", color=_colour(system.name), label=system.name)
    axes[0].set_yticks(np.arange(len(groups)) + 0.4, [f"{g} ({int((of == i).sum())})" for i, g in enumerate(groups)])
    axes[0].set(xlabel="false regions per clean image, nominal 1", title="by commodity")
    axes[1].set(xlabel="false regions in a clean image, nominal 1", ylabel="images", title="how they are spread")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend()


def _gallery(axes: Sequence[Axes], e: Evaluation, name: str, *, hits: bool) -> None:
    """Show insertions drawn by lot, the clean image on the left and the changed one on the right."""
    chosen = np.flatnonzero(e.table.visible() & (e.hits(name, "fa1") == hits))
    rng = np.random.default_rng([e.setting.seed, 51])
    lot = rng.permutation(chosen)[: len(axes)]
    for ax in axes:
        ax.set_axis_off()
    for ax, at in zip(axes, lot, strict=False):
        trial = e.table.trials[int(at)]
        found = inserted_image(e.archive, trial.plan)
        assert found is not None
        source = e.archive.sources[trial.plan.source]
        loaded = load(source)
        rows, columns = np.flatnonzero(found.mask.any(axis=1)), np.flatnonzero(found.mask.any(axis=0))
        size = max(int(np.ptp(rows)), int(np.ptp(columns)), 40)
        y, x = int(rows.mean()), int(columns.mean())
        view = slice(max(0, y - size), y + size), slice(max(0, x - size), x + size)
        pair = [np.sqrt(through_chain(loaded, source.quality, image))[view] for image in (loaded.image, found.image)]
        gap = np.ones((pair[0].shape[0], max(2, size // 30)))
        ax.imshow(np.hstack([pair[0], gap, pair[1]]), cmap="gray", vmin=0, vmax=1)
        told = f"{trial.plan.kind} a {abs(trial.alpha):.2f}, T {trial.background_t:.2f}, CNR {trial.cnr:.1f}"
        ax.set_title(f"{told}\n{source.name}", fontsize=7)
