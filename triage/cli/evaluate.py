"""`scanlane evaluate`: how well judgement finds what it should."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from scanner_io.errors import DataError

from .shared import (
    EXIT_BAD_INPUT,
    emit,
    json_option,
    new_console,
    progress_bar,
    rounds_option,
    seed_option,
    worker_processes,
    workers_option,
)


@click.group()
def evaluate() -> None:
    """Measure how well judgement finds what it should, at a false alarm rate that is kept."""


@evaluate.command("portal")
@click.option("--passes", default=30_000, show_default=True, type=click.IntRange(100), help="Clean passages simulated.")
@click.option(
    "--injections", default=40, show_default=True, type=click.IntRange(2), help="Sources per strength, passage."
)
@click.option(
    "--passes-of-faults", default=20_000, show_default=True, type=click.IntRange(1),
    help="Passages simulated with faults, in which missed, merged and doubled ones are counted.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="2000 passes, 4 injections, 500 with faults: a look, not a result.")
@click.option(
    "--logs", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with S2-C0-NONE.csv and S2-C3-NORM2.csv. Default: ../shared/data/portal, else simulated only.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write plots into this folder (needs the extra `study`).")
@seed_option
@workers_option
@json_option
def evaluate_portal_command(
    passes: int, injections: int, passes_of_faults: int, quick: bool, logs: Path | None, out: Path | None, seed: int,
    workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Portal sources, beside the vendor's rule, k-sigma, CUSUM and SPRT.

    Sources are injected into recorded passages and simulated ones; false alarms are counted on simulated passages.
    """
    from triage.study import evaluate_portal as study

    if quick:
        passes, injections, passes_of_faults = 2000, 4, 500
    logs = logs or study.default_logs()
    with (
        progress_bar(study.steps(passes, real=logs is not None), "evaluating", quiet=as_json) as advance,
        worker_processes(workers) as pool,
    ):
        report = study.evaluate_portal(
            passes=passes, injections=injections, seed=seed, logs=logs, out=out,
            passes_of_faults=passes_of_faults, progress=advance, pool=pool,
        )  # fmt: skip
    if as_json:
        emit(report)
        return
    from rich.table import Table
    from rich.text import Text

    from triage.study.plot_portal import plain

    table = Table(show_header=False, box=None)
    for name, text in plain(report):
        table.add_row(Text(name, style="bold"), Text(text))
    new_console().print(table)


@evaluate.command("image")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--per-image", default=30, show_default=True, type=click.IntRange(1, 1000), help="Insertions into every scan."
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 100), help="How often that is done, each anew."
)
@click.option("--quick", is_flag=True, help="10 insertions per scan once, 3 folds: a look, not a result.")
@click.option(
    "--unseen/--no-unseen", default=None,
    help="Also leave kinds out of training in turn. Default: where scikit-learn is installed (extra `study`).",
)  # fmt: skip
@click.option(
    "--folds", "most_folds", default=5, show_default=True, type=click.IntRange(3, 50), help="Groups of commodities."
)
@click.option(
    "--learn-per-image",
    default=12,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Insertions into every scan that is learned from.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Fuser or lane profile learned elsewhere. Default: the packaged fuser; trained anew on scans it has seen.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write plots into this folder (needs the extra `study`).")
@seed_option
@click.option(
    "--workers", "--jobs", default=lambda: min(os.cpu_count() or 1, 64), show_default="one per processor",
    type=click.IntRange(1, 64), help="Processes to work with.",
)  # fmt: skip
@json_option
def evaluate_image_command(
    folder: Path, per_image: int, seeds: int, quick: bool, unseen: bool | None, most_folds: int, learn_per_image: int,
    profile: Path | None, out: Path | None, seed: int, workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Objects put into the scans in FOLDER: how many are found, at false alarms that are counted.

    FOLDER holds images or recordings, with or without a manifest.csv (file, declared_hs4, texture). Of fewer than 6
    scans, or of fewer than 4 commodities or looks, nothing is learned: they are judged by the profile and its own
    thresholds, and what needs more scans is null in the report, with the reason. A scan that the profile was trained
    on is a leak under any name, size and compression. Exit code 1 also where the placebo or the leak check fails:
    then no figure may be believed.
    """
    from triage.study import evaluate_image as study

    work = study.prepare(
        folder, per_image=per_image, seeds=seeds, quick=quick, unseen=unseen, profile=profile, seed=seed,
        most_folds=most_folds, learn_per_image=learn_per_image,
    )  # fmt: skip
    with progress_bar(len(work.jobs), "evaluating", quiet=as_json) as advance, worker_processes(workers) as pool:
        report = study.evaluate_image(work, out=out, progress=advance, pool=pool)
    if as_json:
        emit(report)
    else:
        _image_table(report)
    wrong = study.faults(report)
    if wrong:
        raise DataError(f"this evaluation must not be believed: {'; '.join(wrong[:5])} ({len(wrong)} in all)")


def _image_table(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from triage.study.image_bars import in_words, rows

    judged = list(report["systems"])[-1]
    table = Table(box=None)
    for head in ("", "bar", "aim", *report["systems"], f"met by {judged}"):
        table.add_column(head, no_wrap=bool(head))
    for row in rows(report, judged):
        verdict = "not measured" if row.met is None else "yes" if row.met else f"NO: {row.why}"
        colour = {True: "green", False: "bold red", None: "dim"}[row.met]
        cells = [row.measured.get(name, "") for name in report["systems"]]
        table.add_row(Text(row.name), row.bar, row.aim, *cells, Text(verdict, style=colour))
    console = new_console()
    if not console.is_terminal:
        console.width = 160  # in a file lines may be long; a terminal wraps them
    console.print(table)
    for line in in_words(report):
        console.print(line, markup=False, soft_wrap=True)


@evaluate.command("findings")
@click.option("--clean", default=400, show_default=True, type=click.IntRange(20), help="Vehicles without a threat.")
@click.option("--threats", default=60, show_default=True, type=click.IntRange(1), help="Vehicles with each threat.")
@seed_option
@workers_option
@json_option
def evaluate_findings_command(clean: int, threats: int, seed: int, workers: int, as_json: bool) -> None:
    """How often each kind of specific finding names what it is for on SIMULATED vehicles, and how often it is wrong."""
    from triage.study import evaluate_findings as study

    with (
        progress_bar(study.steps(clean, threats), "simulating", quiet=as_json) as advance,
        worker_processes(workers) as pool,
    ):
        report = study.evaluate_findings(clean=clean, threats=threats, seed=seed, progress=advance, pool=pool)
    if as_json:
        emit(report)
        return
    from rich.table import Table

    head, *lines = study.rows(report)
    table = Table(*head, box=None, header_style="bold", title="SIMULATED, uncalibrated; % with 95 % intervals")
    for line in lines:
        table.add_row(*line)
    new_console().print(table)


@evaluate.command("dual-energy")
@click.option(
    "--tables", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with mev_transparency_geant4.csv, mev_spectra.csv and mev_dual_scene.npz.",
)  # fmt: skip
@click.option(
    "--pairs", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the flat-panel pairs Fusion2-*kV.png and FusionPart1-*kV.png.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write PNG maps into this folder.")
@click.option("--vehicles", default=0, show_default=True, type=click.IntRange(0), help="Simulated ones to weigh.")
@rounds_option
@json_option
def evaluate_dual_energy(
    tables: Path | None, pairs: Path | None, out: Path | None, vehicles: int, rounds: int, as_json: bool
) -> None:
    """Areal density and material classes against tables and a scene of Geant4, real pairs, and simulated vehicles.

    Default folders: ../shared/data/attenuation and ../shared/data/xray16/flatpanel beside this source, if there.
    """
    from triage.study import dual_energy as study

    tables, pairs = tables or study.default_folder("attenuation"), pairs or study.default_folder("xray16/flatpanel")
    report = study.evaluate_dual_energy(tables, pairs, out, rounds=rounds, vehicles=vehicles)
    if as_json:
        emit(report)
        return
    console = new_console()
    for line in study.in_words(report):
        console.print(line, markup=False, soft_wrap=True)


@evaluate.command("simulator")
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--scans", default=96, show_default=True, type=click.IntRange(2), help="Simulated scans per group.")
@click.option("--out", type=click.Path(path_type=Path), help="Write plots and pictures here (needs the extra `study`).")
@seed_option
@json_option
def evaluate_simulator_command(folder: Path | None, scans: int, out: Path | None, seed: int, as_json: bool) -> None:
    """How much simulated scans look like the real ones in FOLDER: texture statistics, distances, pictures.

    Default FOLDER: ../shared/data/cargo beside this source, if there; else simulated scans alone.
    """
    from triage.study import evaluate_simulator as study

    with progress_bar(2 * scans, "simulating", quiet=as_json) as advance:
        report = study.evaluate_simulator(
            folder or study.default_folder(), scans=scans, seed=seed, out=out, progress=advance
        )
    if as_json:
        emit(report)
        return
    console = new_console()
    console.print(study.table(report))
    for line in study.in_words(report):
        console.print(line, markup=False, soft_wrap=True)


@evaluate.command("calibration")
@click.option("--calibration", default=3000, show_default=True, type=click.IntRange(100), help="Scans to learn from.")
@click.option("--clean", default=5000, show_default=True, type=click.IntRange(100), help="Clean scans to judge.")
@click.option("--quick", is_flag=True, help="300 to learn from, 300 to judge: a look, not a result.")
@click.option(
    "--flag-rate", default=0.05, show_default=True, type=click.FloatRange(0, 0.5, min_open=True), help="Promised."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Keep scores here: a second run of the same code is fast."
)
@seed_option
@workers_option
@json_option
def evaluate_calibration_command(
    calibration: int, clean: int, quick: bool, flag_rate: float, cache: Path | None, seed: int, workers: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Whether a calibrated lane keeps its promised flag rate, and how soon it notices a drift. Simulated scans."""
    from triage.study import evaluate_calibration as study

    size = study.Size(calibration=calibration, clean=clean)
    if quick:
        size = study.Size(calibration=300, clean=300, drifted=150, threats=50, orders=5)
    steps = sum(len(p) for p in study.parts_of(size, seed).values())
    with progress_bar(steps, "evaluating", quiet=as_json) as advance, worker_processes(workers) as pool:
        report = study.evaluate_calibration(
            size, seed=seed, flag_rate=flag_rate, cache=cache, progress=advance, pool=pool
        )
    if as_json:
        emit(report)
        return
    for line in study.in_words(report):
        new_console().print(line, markup=False, soft_wrap=True)


@evaluate.command("matching")
@click.option("--passages", default=10_000, show_default=True, type=click.IntRange(100), help="Vehicles per gate.")
@click.option(
    "--wrong-join", default=0.001, show_default=True, type=click.FloatRange(0, 0.05, min_open=True),
    help="Chance of a wrong declaration that is accepted at a join; as in [cargo] of a configuration.",
)  # fmt: skip
@seed_option
@json_option
def evaluate_matching_command(passages: int, wrong_join: float, seed: int, as_json: bool) -> None:
    """How often a SIMULATED vehicle gets its own declaration by what cameras read, a wrong one, or none.

    Errors of reading: O for 0, B for 8, I for 1, S for 5, lost, added and swapped characters, dirt, cut ends, empty
    readings; numbers of the same series are declared and not declared. The first gate is the one with an aim.
    """
    from triage.study import evaluate_matching as study

    with progress_bar(study.steps(passages), "matching", quiet=as_json) as advance:
        report = study.evaluate_matching(passages=passages, seed=seed, wrong_join=wrong_join, progress=advance)
    if as_json:
        emit(report)
        return
    from rich.table import Table

    head, *lines = study.rows(report)
    table = Table(*head, box=None, header_style="bold", title="SIMULATED; % with exact 95 % intervals")
    for line in lines:
        table.add_row(*line)
    console = new_console()
    console.print(table)
    aim, words = report["aim"], {name: "met" if met else "NOT met" for name, met in report["met"].items()}
    console.print(
        f"aim at the first gate: right at least {100 * aim['right']:g} % ({words['right']}), "
        f"wrong at most {100 * aim['wrong']:g} % ({words['wrong']})", soft_wrap=True,
    )  # fmt: skip


@evaluate.command("image-quality")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--object", "object_", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file that says where the parts of the test object lie, and what the site asks of them.",
)  # fmt: skip
@click.option(
    "--trend", type=click.Path(path_type=Path, dir_okay=False), help="File of JSON lines to add the scans to."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="PNG of the trend (needs the extra `study`)."
)
@json_option
def evaluate_image_quality(
    files: tuple[Path, ...], object_: Path, trend: Path | None, out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Check scans of a test object: steel that is seen through, wires, contrast, sharpness, against the site's limits.

    FILES are images or recordings. `triage/study/image_quality.py` shows the file of an object. Exit code 1 if a limit
    is not kept. The questions are those of IEC 62523 and ANSI N42.46; conformance to them is not claimed.
    """
    from scanner_io.foreign import ForeignFiles
    from scanner_io.storage import write_durable
    from triage.study import image_quality as study

    what = study.read_object(object_)
    rows: list[dict[str, Any]] = []
    with ForeignFiles() as readers:
        reports = [study.check_scan(path, what, readers) for path in files]
    for report in reports:
        rows = [*rows, report] if trend is None else study.note(trend, report)
        if as_json:
            emit(report)
            continue
        console = new_console()
        for energy, told in report["energies"].items():
            than = {name: f"{words} " for name, words in told["bounds"].items()}
            figures = ", ".join(f"{k} {than.get(k, '')}{v:g}" for k, v in told["figures"].items() if v is not None)
            missed = ", ".join(f"{k} {told['limits'][k]:g}" for k, kept in told["kept"].items() if not kept)
            word = f"LIMIT NOT KEPT: {missed}" if missed else "limits kept" if told["limits"] else "no limits set"
            console.print(f"{Path(report['file']).name} {energy}: {figures or 'nothing seen'}; {word}", markup=False)
    if out is not None:
        write_durable(out, study.picture(rows, what), replace=True)
    if not all(report["passed"] for report in reports):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
