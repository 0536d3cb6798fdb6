"""`scanlane evaluate simulator`: how much simulated scans look like real ones, in numbers and side by side.

Real scans are a folder of pictures. Simulated ones are made as the archive of a customs service holds them: 8 bits,
windowed for display, through JPEG. Of both the same statistics are taken (`texture`), image by image; two samples of
them are compared by the Kolmogorov-Smirnov distance D, and all statistics together by the energy coefficient (0: the
same distribution, 1: nothing in common) with a permutation test. A group `alike` is loaded as the real scans are, by
what they are declared as or look like; `all` holds all kinds of cargo alike.

Source: G. J. Szekely and M. L. Rizzo, J. Stat. Plann. Inference 143 (2013) 1249 (energy statistics).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from scanner_io import driver
from scanner_io.errors import DataError, ScannerError
from scanner_io.formats.raster import read_raster

from .texture import NAMES, inside, statistics

Array: TypeAlias = NDArray[Any]

ALIKE = {
    "empty": 5.0, "frozen": 7.0, "fruit": 2.0, "bulk": 4.0, "big_bags": 3.0, "bales": 2.0, "paper": 4.0, "drums": 1.0,
    "plates": 1.0,
}  # fmt: skip
"""How many of the real scans at hand hold what: by the declared HS4 where there is one, else by their look."""
LANES = (
    {"columns": 1500, "source_distance_mm": 4600.0, "quanta": 40_000.0},
    {"columns": 1900, "source_distance_mm": 5200.0, "scatter": 0.008},
    {"columns": 1300, "source_distance_mm": 4800.0, "pulse_sd": 0.006, "quanta": 10_000.0},
)
"""Lanes that take turns: pitch of the columns against that of the channels (real pictures are compressed along the
vehicle by up to a half), distance of the source, scatter, dose, how even the source is.
"""
CHANNELS = 704
JPEG_QUALITY = (75, 85, 92)
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
PERMUTATIONS = 999


class Scan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One measured picture.

    kind : cargo of a simulated scan, "" of a real one
    inside : `(rows, columns) float32` transmission inside the container
    """

    name: str
    kind: str
    inside: Array
    values: dict[str, float]


def default_folder() -> Path | None:
    """Return the folder of real cargo scans beside this source checkout, None where it is absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "cargo"
    return folder if folder.is_dir() else None


def evaluate_simulator(
    folder: Path | None, *, scans: int, seed: int, out: Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Return statistics of simulated scans, beside those of the real ones in `folder` where one is given.

    scans : simulated scans per group; out : folder for plots; progress : called after every simulated scan

    Raises DataError where the folder holds no picture with a container.
    """
    if out is not None:
        from .plot_portal import need_matplotlib

        need_matplotlib()
    real, left_out = real_scans(folder) if folder is not None else ([], {})
    if folder is not None and not real:
        raise DataError(f"{folder}: no picture in which a container is found; seen: {left_out or 'no pictures'}")
    groups = {
        "alike": simulated_scans(ALIKE, scans, seed, progress),
        "all": simulated_scans({}, scans, seed + 1, progress),
    }
    report: dict[str, Any] = {
        "real": _summary(real) if real else None,
        "real_images": len(real),
        "real_left_out": left_out,
        "simulated": {name: {"simulated": True, "images": len(g), **_summary(g)} for name, g in groups.items()},
        "distance": {name: distances(real, g, seed) for name, g in groups.items()} if real else None,
        "by_kind": by_kind([*groups["alike"], *groups["all"]]),
        "plots": [],
    }
    if out is not None:
        from .plot_simulator import plot_simulator

        report["plots"] = plot_simulator(out, real, groups, report)
    return report


def real_scans(folder: Path) -> tuple[list[Scan], dict[str, str]]:
    """Return the measured pictures of a folder, and file -> why it was left out."""
    measured: list[Scan] = []
    left_out: dict[str, str] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            image = read_raster(path)
        except ScannerError as error:
            left_out[path.name] = str(error)
            continue
        t = np.clip(image.upright().astype(np.float32) / float(image.detector.air[-1].max()), 0, 1)
        one = _measured(path.name, "", t)
        if one is None:
            left_out[path.name] = "no container found, or a thumbnail"
        else:
            measured.append(one)
    return measured, left_out


def simulated_scans(cargo: dict[str, float], scans: int, seed: int, progress: Callable[[], object]) -> list[Scan]:
    """Return so many measured pictures of simulated vehicles without threats; cargo : kind -> weight."""
    module: Any = driver.load("simulated")
    measured: list[Scan] = []
    for index in range(scans):
        config = module.Config(
            seed=seed, channels=CHANNELS, energies=1, portal=False, declarations=False, cargo=cargo,
            threat_share=0.0, display=True, bits=8, speed_variation=0.05, rear_first_share=0.4,
            **LANES[index % len(LANES)],
        )  # fmt: skip
        truth = module.ground_truth(config, index)
        picture = archived(module, config, index, JPEG_QUALITY[index % len(JPEG_QUALITY)])
        one = _measured(truth.source_ref, truth.cargo, picture)
        if one is not None:
            measured.append(one)
        progress()
    return measured


def archived(module: Any, config: Any, index: int, quality: int) -> Array:
    """Return a simulated scan as an archive holds it, upright transmission: display-windowed, through JPEG."""
    upright = np.ascontiguousarray(module.simulate_radiograph(config, index).upright().astype(np.uint8))
    done, jpeg = cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ScannerError(f"simulated scan {index}: could not be encoded as JPEG")
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


def _measured(name: str, kind: str, t: Array) -> Scan | None:
    cut = inside(t)
    return None if cut is None else Scan(name=name, kind=kind, inside=cut, values=statistics(cut))


def _summary(scans: Sequence[Scan]) -> dict[str, Any]:
    """Return statistic -> its quartiles over images."""
    quartiles = {n: np.percentile([s.values[n] for s in scans], (25, 50, 75)).round(4).tolist() for n in NAMES}
    levels = np.histogram(np.concatenate([s.inside.ravel() for s in scans]), bins=16, range=(0, 1))[0]
    return {"quartiles": quartiles, "grey_levels": (levels / levels.sum()).round(4).tolist()}


def by_kind(scans: Sequence[Scan]) -> dict[str, dict[str, Any]]:
    """Return kind of cargo -> statistic -> median over its simulated scans."""
    kinds = sorted({s.kind for s in scans})
    return {
        kind: {"images": sum(s.kind == kind for s in scans),
               **{n: round(float(np.median([s.values[n] for s in scans if s.kind == kind])), 4) for n in NAMES}}
        for kind in kinds
    }  # fmt: skip


def distances(real: Sequence[Scan], simulated: Sequence[Scan], seed: int) -> dict[str, Any]:
    """Return per statistic D and p of the two-sample test, and the energy coefficient of all together."""
    table = {}
    for name in NAMES:
        test = ks_2samp([s.values[name] for s in real], [s.values[name] for s in simulated])
        table[name] = {"d": round(float(test.statistic), 3), "p": round(float(test.pvalue), 4)}
    points = np.array([[s.values[n] for n in NAMES] for s in (*real, *simulated)])
    # Ranks, so that no statistic weighs more for its unit or its outliers.
    ranks = np.argsort(np.argsort(points, axis=0), axis=0) / (len(points) - 1)
    gaps = np.linalg.norm(ranks[:, np.newaxis] - ranks[np.newaxis], axis=2)
    seen, rng = _energy(gaps, len(real)), np.random.default_rng([seed, 77])
    beyond = 0
    for _ in range(PERMUTATIONS):
        order = rng.permutation(len(points))
        beyond += _energy(gaps[np.ix_(order, order)], len(real)) >= seen
    return {"statistics": table, "energy": round(seen, 3), "energy_p": round((1 + beyond) / (1 + PERMUTATIONS), 3)}


def _energy(gaps: Array, first: int) -> float:
    """Return the energy coefficient of the first so many points against the others, from all distances."""
    between, a, b = gaps[:first, first:].mean(), gaps[:first, :first].mean(), gaps[first:, first:].mean()
    return float((2 * between - a - b) / (2 * between))


# -------------------------------------------------------------------------------------------------------- in words


def table(report: dict[str, Any]) -> Any:
    """Return the statistics as a table for the terminal."""
    from rich.table import Table

    from .texture import WORDS

    drawn = Table(title="inside the container, quartiles over images")
    columns = ["statistic", *(["real"] if report["real"] else []), *report["simulated"]]
    for name in columns:
        drawn.add_column(name)
    if report["distance"]:
        for name in report["simulated"]:
            drawn.add_column(f"D {name}", justify="right")
    for name in NAMES:
        rows = [r for r in (report["real"], *report["simulated"].values()) if r is not None]
        cells = [" ".join(f"{v:.3g}" for v in row["quartiles"][name]) for row in rows]
        if report["distance"]:
            tests = [d["statistics"][name] for d in report["distance"].values()]
            cells += [f"{t['d']:.2f}{'*' if t['p'] < 0.01 else ''}" for t in tests]
        drawn.add_row(WORDS[name], *cells)
    return drawn


def in_words(report: dict[str, Any]) -> list[str]:
    """Return what the table does not say."""
    lines = [
        f"{report['real_images']} real images; left out: "
        + ("; ".join(f"{n} ({why})" for n, why in report["real_left_out"].items()) or "none"),
        *(f"{name}: {g['images']} scans, SIMULATED" for name, g in report["simulated"].items()),
    ]
    if report["distance"]:
        lines += [
            f"all statistics together, real against {name}: energy coefficient {d['energy']:.3f} "
            f"(0 the same, 1 nothing in common), p {d['energy_p']:.3f}"
            for name, d in report["distance"].items()
        ]
        lines.append("D: Kolmogorov-Smirnov distance of the two samples; * unlikely (p < .01) if they were alike")
    return lines + [f"written: {path}" for path in report["plots"]]
