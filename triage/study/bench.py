"""The triage benchmark: how long a radiograph takes, against a copy of its bytes and good OpenCV and numpy code.

Ratios count, not milliseconds: all contestants run interleaved in one process, after a warm-up, on inputs already
written, so that the load of the machine meets them alike. Speed counts only with agreement, measured in the same run.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.analysis.screening import (
    STRIP_LABELS,
    Z_STEPS,
    Buffers,
    Calibration,
    Engine,
    Screening,
    screen,
    warm_up,
)
from triage.kernels.join_runs import AREA, FEATURES
from triage.kernels.label_columns import LABELS, label_columns
from triage.kernels.median3 import START, median3
from triage.kernels.screen_columns import FINISHED
from triage.service.strip_workers import StripWorkers
from triage.study.agreement import identical, on_the_same_pixels, with_peer, with_reference
from triage.study.bench_judgement import bench_judgement
from triage.study.measure import Contestant, machine, peak_rss_mb, ratio, timed, versions
from triage.study.phantom import phantom

CHANNELS = 2000
STRIP = 250
#: Columns of the middle that a quick run compares with the float64 reference; of a dense scene, any run.
REFERENCE_COLUMNS, DENSE_REFERENCE_COLUMNS = 1200, 300
#: Columns in a block of the streaming contestants: what a detector at 500 lines a second gives in 64, 40 and 128 ms.
BLOCKS = (32, 20, 64)
THRESHOLD_Z = 4.0
STEP = int(THRESHOLD_Z * Z_STEPS)
#: Share of the pixels that pass the threshold in a dense scene.
DENSE_SHARE = 0.05

Counts = tuple[NDArray[np.uint16], ...]


def bench_triage(
    rounds: int = 7, width: int = 5000, progress: Callable[[int, int], None] | None = None, *, quick: bool = False
) -> dict[str, Any]:
    """Run the benchmark and return a JSON-ready report.

    rounds : times every contestant runs; at least 7 for figures to be quoted
    width : columns of the phantom; 5000 is the reference frame of 2000 x 5000 x 2 energies, 40 MB
    progress : called with (rounds done, all rounds)
    quick : leave out naive numpy/scipy and scikit-image's stages, which take seconds each, and compare 1200 columns
        with the reference, which needs 2 GB for the whole frame; scikit-image is in the test extra, and left out where
        it is not installed

    vs_memcpy is ours / copy (smaller is better), all other vs_* are the peer / ours (bigger is better), both with two
    threads. Every ratio holds median, min and max over the rounds, each round's contestants paired. The streaming
    engine takes blocks of BLOCKS columns on one thread: streaming_over_batch is all its time, last_column_fraction
    that from the arrival of the last block to the result, both by the one-thread whole image and for the first of
    BLOCKS; last_column_by_block has all, with the milliseconds. dense_over_sparse is
    that of the slowest of dense_scenes (the phantom, a real scan scaled up, a simulated mixed load), each with a
    threshold that 5 % of its pixels pass, by the phantom at 4. threads_ceiling is what the machine's two cores give:
    twice one thread's time by that of two radiographs at once, one thread each, which share nothing but the machine.
    judgement is the whole one of a simulated scan and how much of it is left after the last column (bench_judgement).

    Raises DataError when the source checkout with its tests, where peers and reference live, is not there.
    """
    if rounds < 1 or width < 8:
        raise DataError(f"bench: rounds is {rounds} and width {width}; give at least 1 round and 8 columns")
    peers, reference = _from_tests("bench/peers.py"), _from_tests("reference.py")
    load_before = os.getloadavg()
    counts, calibration = phantom(CHANNELS, width)
    table = material_table()
    warm_up()
    times: dict[str, list[float]] = {}
    with StripWorkers(2) as workers:
        ours = _ours(counts, calibration, table, workers)
        streams = {block: _Stream(counts, calibration, table, block) for block in BLOCKS}
        dense, skipped = _dense(counts, calibration, table, width, workers)
        strips = {n: peers.OpenCvPeer(calibration, table, width, strip=STRIP, workers=n, cv_threads=1) for n in (1, 2)}
        chained = peers.OpenCvPeer(calibration, table, width, strip=width, workers=1, cv_threads=2)
        contestants: dict[str, Contestant] = {
            "memcpy": _copier(counts),
            **ours,
            **{f"ours_streaming_{block}_1t": stream.run for block, stream in streams.items()},
            **{f"ours_dense_{name}_2t": scene.run for name, scene in dense.items()},
            "opencv_strips_1t": lambda: strips[1].run(counts),
            "opencv_strips_2t": lambda: strips[2].run(counts),
            "opencv_chained_2t": lambda: chained.run(counts),
        }
        naive, stages = None, None
        heavy: dict[str, Contestant] = {}
        if not quick:
            naive = peers.NaivePeer(calibration, table)
            heavy["naive"] = lambda: naive.run(counts)
        if not quick and importlib.util.find_spec("skimage") is not None:
            stages = _Stages(screen(counts, calibration, strips=1, material_table=table), peers.SkimagePeer())
            heavy |= stages.contestants
        for i in range(rounds):
            # The first touches buffers, the second shows caches their rows; seconds of a heavy peer undo both.
            for run in (*contestants.values(), *(contestants.values() if i == 0 else ())):
                run()
            for name, run in contestants.items():
                times.setdefault(name, []).append(timed(run))
            for block, stream in streams.items():
                times.setdefault(f"last_column_{block}", []).append(stream.last_s)
            for name, run in heavy.items():
                times.setdefault(name, []).append(timed(run))
            if progress is not None:
                progress(i + 1, rounds)
        peak_mb = peak_rss_mb()  # before the reference, which needs more than all contestants
        judgement = bench_judgement(rounds, width, workers)
        agreement = _agreement(counts, calibration, table, reference, workers, REFERENCE_COLUMNS if quick else width)
        mine = screen(counts, calibration, material_table=table)
        peers_told = {f"opencv_strips_{n}t": strips[n].run(counts) for n in strips}
        peers_told["opencv_chained_2t"] = chained.run(counts)
        agreement["peers"] = {name: with_peer(mine, told, THRESHOLD_Z) for name, told in peers_told.items()}
        if naive is not None:
            agreement["peers"]["naive"] = with_peer(mine, naive.run(counts), THRESHOLD_Z)
        if stages is not None:
            agreement["peers"]["skimage"] = stages.agreement()
        agreement["dense_scenes"] = {name: scene.agreement(reference) for name, scene in dense.items()}
        parts = (*agreement["peers"].values(), *agreement["dense_scenes"].values())
        agreement["ok"] = agreement["ok"] and all(part["ok"] for part in parts)
        for peer in (*strips.values(), chained):
            peer.close()

    two = times["ours_2t"]
    over_sparse = {name: ratio(times[f"ours_dense_{name}_2t"], two) for name in dense}
    return {
        "frame": {"channels": CHANNELS, "columns": width, "energies": 2, "bytes": sum(c.nbytes for c in counts)},
        "rounds": rounds,
        "medians_ms": {name: round(statistics.median(values) * 1e3, 3) for name, values in times.items()},
        "vs_memcpy": ratio(two, times["memcpy"]),
        "vs_opencv_strips": ratio(times["opencv_strips_2t"], two),
        "vs_opencv_strips_1t": ratio(times["opencv_strips_1t"], times["ours_1t"]),
        "vs_opencv_chained": ratio(times["opencv_chained_2t"], two),
        "vs_naive": None if quick else ratio(times["naive"], two),
        "vs_skimage": None if quick else _skimage(stages, times),
        "threads_speedup": ratio(times["ours_1t"], two),
        "threads_ceiling": ratio([2 * t for t in times["ours_1t"]], times["ours_1t_twice_at_once"]),
        "dense_over_sparse": max(over_sparse.values(), key=lambda r: r["median"]),
        "dense_scenes": {
            **{n: {"share": s.share, "threshold_z": s.threshold_z, **over_sparse[n]} for n, s in dense.items()},
            **{name: {"skipped": reason} for name, reason in skipped.items()},
        },
        "last_column_fraction": ratio(times[f"last_column_{BLOCKS[0]}"], times["ours_1t"], digits=5),
        "last_column_by_block": {
            str(block): {
                **ratio(times[f"last_column_{block}"], times["ours_1t"], digits=5),
                "median_ms": round(statistics.median(times[f"last_column_{block}"]) * 1e3, 3),
            }
            for block in BLOCKS
        },
        "streaming_over_batch": ratio(times[f"ours_streaming_{BLOCKS[0]}_1t"], times["ours_1t"]),
        "judgement": judgement,
        "agreement": agreement,
        "agreement_ok": bool(agreement["ok"]),
        "peak_rss_mb": peak_mb,
        "machine": machine(load_before),
        "versions": versions(),
    }


def material_table() -> NDArray[np.uint8]:
    """Return a (512, 512) uint8 table of a few classes by the ratio of the two log transmissions; 0 = thin."""
    low = (8 * np.arange(512)[:, None] - 128) / 512
    high = (8 * np.arange(512)[None, :] - 128) / 512
    ratio = low / np.maximum(high, 0.01)
    return np.where((low < 0.05) | (high < 0.05), 0, 1 + np.digitize(ratio, (1.05, 1.15, 1.25))).astype(np.uint8)


def _from_tests(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tests" / name
    spec = importlib.util.spec_from_file_location("scanlane_bench_" + path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise DataError(
            f"bench: {path} is not there; the peers live with the tests, so run the benchmark from a source checkout"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ours(
    counts: Counts, calibration: Calibration, table: NDArray[np.uint8], workers: StripWorkers
) -> dict[str, Contestant]:
    kept = {name: Buffers() for name in ("1t", "2t", "beside")}

    def one() -> Screening:
        return screen(counts, calibration, strips=1, material_table=table, buffers=kept["1t"])

    def two() -> Screening:
        return screen(counts, calibration, map_strips=workers.map, material_table=table, buffers=kept["2t"])

    def beside() -> Screening:
        return screen(counts, calibration, strips=1, material_table=table, buffers=kept["beside"])

    def two_at_once() -> None:
        for _ in workers.map(lambda run: run(), (one, beside)):
            pass

    return {"ours_1t": one, "ours_2t": two, "ours_1t_twice_at_once": two_at_once}


class _Dense:
    """A scene screened with a threshold that DENSE_SHARE of its pixels pass."""

    def __init__(
        self, counts: Counts, calibration: Calibration, table: NDArray[np.uint8], workers: StripWorkers,
        buffers: Buffers,
    ) -> None:  # fmt: skip
        def at(threshold_z: float) -> Screening:
            return screen(
                counts, calibration, threshold_z=threshold_z, map_strips=workers.map, material_table=table,
                buffers=buffers,
            )  # fmt: skip

        seen = np.bincount(at(4.0).z.ravel(), minlength=256)
        passing = seen[::-1].cumsum()[::-1] / seen.sum()
        step = max(int(np.argmax(passing <= DENSE_SHARE)), 1)
        self.threshold_z, self.share = step / Z_STEPS, round(float(passing[step]), 4)
        self.run = lambda: at(self.threshold_z)
        self._scene = counts, calibration, table

    def agreement(self, reference: ModuleType) -> dict[str, Any]:
        """Compare the middle of the scene with the float64 reference, at the scene's threshold."""
        counts, calibration, table = self._scene
        _, crop = _crop(counts, DENSE_REFERENCE_COLUMNS)
        mine = screen(crop, calibration, threshold_z=self.threshold_z, material_table=table)
        truth = reference.screen(crop, calibration, table, threshold_z=self.threshold_z)
        return on_the_same_pixels(mine, truth, self.threshold_z)


def _dense(
    counts: Counts, calibration: Calibration, table: NDArray[np.uint8], width: int, workers: StripWorkers
) -> tuple[dict[str, _Dense], dict[str, str]]:
    """Return the dense scenes by name, and why others are not there. They share their memory, one after the other."""
    found: dict[str, tuple[Counts, Calibration] | str] = {"phantom": (counts, calibration)}
    found |= _from_tests("bench/scenes.py").scenes(CHANNELS, width)
    buffers = Buffers()
    dense, skipped = {}, {}
    for name, scene in found.items():
        if isinstance(scene, str):
            skipped[name] = scene
        else:
            dense[name] = _Dense(*scene, table, workers, buffers)
    return dense, skipped


class _Stream:
    """The streaming engine on blocks of columns, as a lane feeds it. last_s : last block -> result, seconds."""

    def __init__(self, counts: Counts, calibration: Calibration, table: NDArray[np.uint8], block: int) -> None:
        columns = counts[0].shape[0]
        first = columns % block  # the last block is a whole one
        cuts = [*([0] if first else []), *range(first, columns, block), columns]
        self._blocks = [tuple(c[i:j] for c in counts) for i, j in pairwise(cuts)]
        self._calibration, self._table = calibration, table
        self._buffers = Buffers()
        self.last_s = 0.0

    def run(self) -> Screening:
        engine = Engine(self._calibration, material_table=self._table, buffers=self._buffers)
        for block in self._blocks[:-1]:
            engine.push(block)
        since = time.perf_counter()
        engine.push(self._blocks[-1])
        result = engine.finish()
        self.last_s = time.perf_counter() - since
        return result


class _Stages:
    """The stages that scikit-image has, ours on one thread beside: the median of one energy, and the components."""

    def __init__(self, screening: Screening, peer: Any) -> None:
        self._codes, self._z = screening.q[-1].copy(), screening.z.copy()
        self._material = screening.material.copy()
        self._median = np.empty_like(self._codes)
        self._peer = peer
        self.contestants: dict[str, Contestant] = {
            "our_median": self._our_median,
            "skimage_median": lambda: peer.median(self._codes),
            "our_components": self._our_components,
            "skimage_components": lambda: peer.components(self._z, self._codes, STEP),
        }
        for run in self.contestants.values():
            run()

    def _our_median(self) -> NDArray[np.uint16]:
        last, channels = len(self._codes) - 1, self._codes.shape[1]
        rows = np.empty((4, START + channels + 1), np.uint16)  # a ring; in the engine the log is written into it
        for c in range(last + 2):
            row = rows[c & 3]
            codes = self._codes[min(c, last)]
            row[START:-1], row[START - 1], row[-1] = codes, codes[0], codes[-1]
            if c > 0:
                median3(rows[max(c - 2, 0) & 3], rows[(c - 1) & 3], row, self._median[c - 1])
        return self._median

    def _our_components(self) -> NDArray[np.int64]:
        runs = np.empty((2, self._z.shape[1] // 2 + 1, 3), np.int64)
        parent, fresh = np.empty(STRIP_LABELS, np.int64), np.empty(STRIP_LABELS, np.int64)
        features, tally = np.empty((STRIP_LABELS, FEATURES), np.int64), np.zeros(FINISHED, np.int64)
        nothing = np.empty((0, 3), np.int64)
        label_columns(self._z, self._codes, self._material, 0, STEP, 1, runs, nothing, parent, fresh, features, tally)
        labels = int(tally[LABELS])
        return np.asarray(features[:labels][parent[:labels] == np.arange(labels)])

    @staticmethod
    def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
        """Return theirs / ours, stage by stage."""
        return {stage: ratio(times[f"skimage_{stage}"], times[f"our_{stage}"]) for stage in ("median", "components")}

    def agreement(self) -> dict[str, Any]:
        """Return whether both stages give the same."""
        theirs = self._peer.components(self._z, self._codes, STEP)
        told = {
            "median_equal": bool(np.array_equal(self._our_median(), self._peer.median(self._codes))),
            "areas_equal": bool(np.array_equal(np.sort(self._our_components()[:, AREA]), np.sort(theirs["area"]))),
        }
        return {**told, "ok": all(told.values())}


def _skimage(stages: _Stages | None, times: dict[str, list[float]]) -> dict[str, Any]:
    if stages is None:
        return {"skipped": "scikit-image is not installed; it is in the test extra"}
    return stages.ratios(times)


def _copier(counts: Counts) -> Contestant:
    copies = [np.zeros_like(c) for c in counts]

    def run() -> None:
        for copy, image in zip(copies, counts, strict=True):
            np.copyto(copy, image)

    return run


def _agreement(
    counts: Counts,
    calibration: Calibration,
    table: NDArray[np.uint8],
    reference: ModuleType,
    workers: StripWorkers,
    width: int,
) -> dict[str, Any]:
    """Compare with the float64 reference on `width` columns in the middle; threads and stream with one on the frame."""
    one = screen(counts, calibration, strips=1, material_table=table)
    two = screen(counts, calibration, map_strips=workers.map, material_table=table)
    same = identical(one, two) and identical(one, _Stream(counts, calibration, table, BLOCKS[0]).run())
    start, crop = _crop(counts, width)
    mine = screen(crop, calibration, material_table=table)
    compared = with_reference(mine, reference.screen(crop, calibration, table), THRESHOLD_Z)
    return {
        "reference_columns": [start, start + crop[0].shape[0]],
        "threads_and_stream_identical": bool(same),
        **compared,
        "ok": bool(same and compared["ok"]),
    }


def _crop(counts: Counts, width: int) -> tuple[int, Counts]:
    """Return the first column of the middle `width` columns, and their counts."""
    start = max((counts[0].shape[0] - width) // 2, 0)
    return start, tuple(np.ascontiguousarray(c[start : start + width]) for c in counts)
