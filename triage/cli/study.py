"""`scanlane study`: questions to archives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .shared import emit, expand, files_argument, json_option, new_console, new_judge, progress_bar, seed_option


@click.group()
def study() -> None:
    """Questions to archives, and what judgement learns from them."""


@study.command("train-fuser")
@click.argument(
    "folders", nargs=-1, required=True, metavar="DIR…",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write (.npz).")
@click.option(
    "--per-image", default=20, show_default=True, type=click.IntRange(1), help="Objects put into every scan, one each."
)
@click.option("--trees", default=150, show_default=True, type=click.IntRange(1, 2000))
@click.option("--leaves", default=16, show_default=True, type=click.IntRange(2, 255), help="At most, of a tree.")
@seed_option
@json_option
def study_train_fuser(
    folders: tuple[Path, ...], out: Path, per_image: int, trees: int, leaves: int, seed: int, as_json: bool
) -> None:
    """Grow the trees that search images, on objects put into the clean scans of folders.

    Needs the extra `study`. The file holds trees, usual scores by place and descriptions of patches, no image; a
    profile names it as `image.fuser`.
    """
    from triage.study import fuser_file
    from triage.study.train_fuser import Options

    options = Options(trees=trees, leaves=leaves)
    archive = fuser_file.joined_archive(folders)
    with progress_bar(per_image * len(archive.sources), "inserting", quiet=as_json) as advance:
        fuser, report = fuser_file.train_fuser(
            archive, per_image=per_image, seed=seed, options=options, progress=advance
        )
    report |= {"file": str(out), "bytes": fuser_file.write_fuser(fuser, out), "thresholds": fuser.thresholds}
    if as_json:
        emit(report)
        return
    for name, value in report.items():
        new_console().print(f"{name:12} {value}", markup=False)


@study.command("training-set")
@files_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Training folder to write.")
@click.option("--share", default=0.3, show_default=True, type=click.FloatRange(0, 1), help="Scans that get a threat.")
@seed_option
@json_option
def training_set(files: tuple[Path, ...], out: Path, share: float, seed: int, as_json: bool) -> None:
    """Put threats into some of a lane's own scans, for analysts to train on: `scanlane console --training DIR`."""
    from scanner_io.foreign import ForeignFiles
    from scanner_io.recording import SUFFIX
    from triage.study.training_set import make_training_set

    paths = expand(files, SUFFIX)
    judge = new_judge()
    try:
        with ForeignFiles() as readers, progress_bar(len(paths), "projecting", quiet=as_json) as advance:
            report = make_training_set(paths, out, share, seed, judge, readers, advance)
    finally:
        judge.close()
    if as_json:
        emit(report)
    else:
        new_console().print(f"{report['scans']} scans, {report['threats']} with a threat, in {out}", markup=False)


@study.command("odd-one-out")
@files_argument
@json_option
def odd_one_out_command(files: tuple[Path, ...], as_json: bool) -> None:
    """The strange box of every lot that one shipper declared alike, by the boxes of the lot alone.

    A lot is at least 5 recordings of one consignor, consignee and declared goods, each within two weeks of the next.
    """
    from triage.study import odd_one_out

    paths = expand(files, ".scan.h5")
    with progress_bar(len(paths), "reading", quiet=as_json) as advance:
        report = odd_one_out.study(paths, advance)
    if as_json:
        emit(report)
    else:
        _print_lots(report, odd_one_out.LEVEL)
    if report.unread:
        sys.exit(1)


def _print_lots(report: Any, level: float) -> None:
    from rich.text import Text

    console = new_console()
    for lot in report.lots:
        console.print(Text(f"{lot.boxes} boxes {lot.consignor} -> {lot.consignee}: {lot.goods}", style="bold"))
        told = [place for place in lot.places if place.p_value <= level]
        for place in told:
            name = place.container or Path(place.file).name
            console.print(
                Text(f"  {name}: {place.score:.1f} spreads from the lot, p {place.p_value:.3f}; {place.words}")
            )
        if not told:
            console.print(Text(f"  none is odd (lowest p {lot.places[0].p_value:.2f})"))
    text = f"{len(report.lots)} lots, {report.too_small} too small, {report.no_lot} recordings of no lot"
    console.print(text, markup=False)
    for file, error in report.unread:
        console.print(Text(f"error: {file}: {error}", style="red"))
