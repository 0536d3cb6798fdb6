"""Plots of `scanlane evaluate simulator` as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from triage.analysis.material_picture import text_band

from .dual_energy_pictures import write_png
from .texture import NAMES, OCTAVES, WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .evaluate_simulator import Scan

COLOURS = {"real": "#c1121f", "alike": "#0b6e4f", "all": "#3a5a98"}
LABELS = {"real": "real scans", "alike": "simulated, loaded alike", "all": "simulated, all kinds"}
PANEL = (900, 220)
"""Width and height of one picture of the sheet."""


def plot_simulator(
    out: Path, real: Sequence[Scan], groups: dict[str, list[Scan]], report: dict[str, Any]
) -> list[str]:  # fmt: skip
    """Write statistics, contrast spectrum, grey levels, and real beside simulated scans; return the paths."""
    from matplotlib.figure import Figure

    out.mkdir(parents=True, exist_ok=True)
    samples = {"real": list(real), **groups} if real else dict(groups)
    figure = Figure(figsize=(16, 11), dpi=100, layout="constrained")
    axes = [figure.add_subplot(4, 5, i + 1) for i in range(20)]
    for ax, name in zip(axes, NAMES, strict=False):
        _boxes(ax, name, samples)
    _spectrum(axes[len(NAMES)], samples)
    _levels(axes[len(NAMES) + 1], report)
    for ax in axes[len(NAMES) + 2 :]:
        ax.set_axis_off()
    figure.suptitle(
        "Inside of the container, display-windowed; boxes are quartiles over images. Green and blue: SIMULATED."
    )
    path = out / "texture.png"
    figure.savefig(path)
    sheets = [_sheet(out / f"beside_{k}.png", real, groups["alike"], k) for k in range(min(4, -(-len(real) // 6)))]
    return [str(path), *sheets, *_kinds(out, groups["all"])]


def _boxes(ax: Axes, name: str, samples: dict[str, list[Scan]]) -> None:
    values = [[s.values[name] for s in scans] for scans in samples.values()]
    drawn = ax.boxplot(values, widths=0.6, patch_artist=True, showfliers=False)
    for patch, key in zip(drawn["boxes"], samples, strict=True):
        patch.set_facecolor(COLOURS[key])
        patch.set_alpha(0.6)
    ax.set_xticklabels(list(samples), fontsize=8)
    ax.set_title(WORDS[name], fontsize=9)


def _spectrum(ax: Axes, samples: dict[str, list[Scan]]) -> None:
    for key, scans in samples.items():
        bands = np.array([[s.values[f"contrast_{int(o)}"] for o in OCTAVES] for s in scans])
        low, middle, high = np.percentile(bands, (25, 50, 75), axis=0)
        ax.plot(OCTAVES, middle, color=COLOURS[key], label=LABELS[key])
        ax.fill_between(OCTAVES, low, high, color=COLOURS[key], alpha=0.15)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_title("contrast spectrum, -ln T by scale in px", fontsize=9)
    ax.legend(fontsize=7)


def _levels(ax: Axes, report: dict[str, Any]) -> None:
    rows = {"real": report["real"], **report["simulated"]}
    for key, row in rows.items():
        if row is not None:
            ax.step(np.arange(16) / 16, row["grey_levels"], where="post", color=COLOURS[key], label=LABELS[key])
    ax.set_yscale("log")
    ax.set_title("grey levels inside the container", fontsize=9)


def _sheet(path: Path, real: Sequence[Scan], simulated: Sequence[Scan], number: int) -> str:
    """Write six real insides on the left and six simulated ones on the right."""
    rows = []
    for k in range(6 * number, 6 * number + 6):
        left = _panel(real[k]) if k < len(real) else _blank()
        right = _panel(simulated[k]) if k < len(simulated) else _blank()
        rows.append(np.hstack([left, right]))
    write_png(path, np.vstack(rows))
    return str(path)


def _kinds(out: Path, scans: Sequence[Scan]) -> list[str]:
    """Write one inside of every kind of cargo, twelve to a sheet."""
    first = list({s.kind: s for s in reversed(scans)}.values())[::-1]
    first.sort(key=lambda s: s.kind)
    written = []
    for start in range(0, len(first), 12):
        panels = [_panel(s) for s in first[start : start + 12]]
        panels += [_blank()] * (len(panels) % 2)
        path = out / f"kinds_{start // 12}.png"
        write_png(path, np.vstack([np.hstack(panels[i : i + 2]) for i in range(0, len(panels), 2)]))
        written.append(str(path))
    return written


def _panel(scan: Scan) -> Any:
    width, height = PANEL
    grey = (np.clip(scan.inside, 0, 1) * 255).astype(np.uint8)
    scale = min(width / grey.shape[1], height / grey.shape[0])
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:height, :width]
    page = np.full((height, width, 3), 255, np.uint8)
    page[: small.shape[0], : small.shape[1]] = small[..., np.newaxis]
    title = f"{scan.name} {scan.kind} SIMULATED" if scan.kind else f"{scan.name} real"
    return np.vstack([text_band(title, width), page])


def _blank() -> Any:
    width, height = PANEL
    return np.full((height + len(text_band("", width)), width, 3), 255, np.uint8)
