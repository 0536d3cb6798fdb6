"""`scanlane study train-fuser`: a fuser from folders of clean scans, real and simulated, into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scanner_io.errors import DataError
from triage.analysis.fuser import About, Fuser, to_bytes
from triage.study.image_archive import Archive, read_archive
from triage.study.image_detectors import TrainedDetector
from triage.study.image_looks import sketch
from triage.study.image_samples import CleanSamples, InsertedSamples, NamedSample, plans
from triage.study.train_fuser import Options

Progress = Callable[[], None]


def joined_archive(folders: Sequence[Path]) -> Archive:
    """Return one archive of the scans of several folders; a scan that is in two of them counts once.

    Raises DataError as `read_archive` does.
    """
    archives = [read_archive(folder) for folder in folders]
    sources = {s.sha256: s for archive in archives for s in archive.sources}
    left_out = tuple(out for archive in archives for out in archive.left_out)
    return Archive(folder=folders[0], sources=tuple(sources.values()), left_out=left_out)


class _Counted(InsertedSamples):
    """Samples that tell when each was taken."""

    progress: Progress | None = None

    def named(self) -> Iterator[NamedSample]:
        for named in super().named():
            yield named
            if self.progress is not None:
                self.progress()


def train_fuser(
    archive: Archive, *, per_image: int, seed: int, options: Options, progress: Progress | None = None
) -> tuple[Fuser, dict[str, Any]]:
    """Return a fuser and what it was made of.

    per_image : insertions of the family "train" into every scan, as often is progress told at most

    Raises DataError where the archive holds fewer than three groups of scans.
    """
    groups = {s.group for s in archive.sources}
    if len(groups) < 3:
        raise DataError(
            f"{archive.folder}: {len(archive.sources)} scans of {len(groups)} commodities or looks; a "
            "fuser is trained on at least three, or it learns what a load looks like"
        )
    members = range(len(archive.sources))
    inserted = _Counted(archive, plans(members, per_image, seed, "train", opaque=False))
    inserted.progress = progress
    detector = TrainedDetector(options)
    detector.fit(CleanSamples(archive, members), np.random.default_rng(seed), inserted)
    assert detector.fuser is not None
    real = sorted((s.sha256, sketch(s.fingerprint)) for s in archive.sources if not s.simulated)
    simulated = sum(s.simulated for s in archive.sources)
    about = About(
        trained_on=tuple(sha256 for sha256, _ in real),
        sketches=tuple(text for _, text in real),
        simulated=f"{simulated} scans by this package's simulator" if simulated else "none",
        options={**msgspec.to_builtins(options), "per_image": per_image, "seed": seed, "insertions": len(inserted)},
    )
    report = {
        "real": len(real), "simulated": simulated, "insertions": len(inserted), "groups": len(groups),
        "left_out": [f"{out.name}: {out.why}" for out in archive.left_out],
    }  # fmt: skip
    return msgspec.structs.replace(detector.fuser, about=about), report


def write_fuser(fuser: Fuser, out: Path) -> int:
    """Write a fuser into a file and return its size in bytes. Raises DataError where that fails."""
    content = to_bytes(fuser)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    except OSError as problem:
        raise DataError(f"{out}: the fuser cannot be written ({problem}); give another file with --out") from problem
    return len(content)
