"""`scanlane triage`, `replay`, `export` and `verify`: recordings and foreign files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scanner_io.errors import ScannerError

from .shared import (
    EXIT_BAD_INPUT,
    emit,
    energy_option,
    expand,
    files_argument,
    json_option,
    new_console,
    new_judge,
    profile_option,
    progress_bar,
    risk_option,
)

NOT_COVERED = "sound; its structure is not covered: it was written before recordings had a seal"


@click.command()
@files_argument
@click.option("--save", type=click.Path(path_type=Path), help="Write an annotated PNG per scan into this folder.")
@click.option(
    "--polarity", type=click.Choice(["auto", "air_bright", "air_dark"]), default="auto", show_default=True,
    help="Whether air is bright or dark in image files.",
)  # fmt: skip
@click.option("--speed-unit", default="m/s", show_default=True, help="Of speeds in N42 files that tell no unit.")
@click.option(
    "--utc-offset-h", default=0.0, show_default=True, type=click.FloatRange(-24, 24),
    help="Hours by which clocks were ahead of UTC (-7 in Arizona), for daily files and N42 files that tell no zone.",
)  # fmt: skip
@click.option(
    "--previous", type=click.Path(path_type=Path, exists=True),
    help="Recording, or folder of them, in which an earlier scan of the same container is looked for.",
)  # fmt: skip
@energy_option
@profile_option
@risk_option
@json_option
def triage(
    files: tuple[Path, ...], save: Path | None, polarity: str, speed_unit: str, utc_offset_h: float,
    previous: Path | None, energy: Path | None, usual: Path | None, risk: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge images, recordings, portal daily files, N42 files and scanners' sidecars (with the images beside them).

    One line per scan or portal passage. A bad file is reported, the rest go on, and the exit code is 1. A daily file
    whose stamps have no date (06-00-00.000) takes that of its first line from its name (portal 2026-01-05.csv).
    """
    from scanner_io.foreign import ForeignFiles
    from scanner_io.formats.n42 import N42Settings
    from scanner_io.formats.raster import RasterOptions
    from triage.service import offline
    from triage.service.earlier import EarlierScans

    options = RasterOptions(polarity=polarity)  # type: ignore[arg-type]
    n42_settings = N42Settings(utc_offset_h=utc_offset_h, speed_unit=speed_unit)
    paths = expand(files, ".scan.h5")
    readers = ForeignFiles()
    judge = None
    bad, rows = 0, []
    pictures: set[str] = set()
    try:
        earlier = None if previous is None else EarlierScans(expand((previous,), ".scan.h5"), readers)
        judge = new_judge(energy, usual, risk)
        with progress_bar(len(paths), "judging", quiet=as_json) as advance:
            for path in paths:
                for judged in offline.judge_file(path, judge, options, n42_settings, earlier, readers):
                    bad += judged.error is not None
                    if save is not None:
                        _save_picture(save, judged, pictures, judge.profile.image)
                    if as_json:
                        emit(judged.row())
                    else:
                        rows.append(judged)
                advance()
    finally:
        readers.close()
        if judge is not None:
            judge.close()
        if not as_json:  # after Ctrl-C too: what was judged until then
            _print_judged(rows)
    if bad:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _save_picture(folder: Path, judged: Any, taken: set[str], profile: Any) -> None:
    """Write the picture of one scan, and of its materials where they can be told.

    Files of one name from different folders get pictures of their own.
    """
    if judged.result is None or judged.scan.radiograph is None:
        return
    import cv2

    from scanner_io.storage import write_durable
    from triage.analysis.picture import annotate

    folder.mkdir(parents=True, exist_ok=True)
    images = {".png": annotate(judged.scan.radiograph, judged.result)}
    if profile.energy is not None:
        from triage.analysis.material_picture import material_map

        materials = material_map(judged.scan.radiograph, profile, simulated=judged.scan.simulated)
        if materials is not None:
            images[".material.png"] = materials[..., ::-1].copy()
    name = first = Path(judged.file).name
    count = 1
    while name in taken:
        count += 1
        name = f"{first}.{count}"
    taken.add(name)
    for suffix, image in images.items():
        done, png = cv2.imencode(".png", image)
        if not done:
            raise ScannerError(f"{judged.file}: the picture could not be encoded as PNG")
        write_durable(folder / f"{name}{suffix}", png.tobytes(), replace=True)


def _print_judged(rows: list[Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from triage.terminal import outcome

    console = new_console()
    table = Table("file", "passage", "outcome", "load", "in alarm", "reason", box=None, header_style="bold")
    for judged in rows:
        row = judged.row()
        portal, passage = "", ""
        if row["gamma_alarm"] is not None:
            portal = f"{row['alarm_intervals']}/{row['gamma_intervals']}" + (" + n" if row["neutron_alarm"] else "")
        if row["start_utc"]:
            passage = row["start_utc"][0 if console.width >= 110 else 11 : 19].replace("T", " ")
            passage = passage if row["number"] is None else f"{row['number']:>3} {passage}"
        reason = row["error"] or (row["reasons"][0] if row["reasons"] else "")
        table.add_row(Text(Path(row["file"]).name), passage, outcome(row["outcome"]), row["load"], portal, Text(reason))
    console.print(table)
    for judged in rows:
        for words in judged.row()["told"]:
            console.print(f"{Path(judged.file).name}: {words}", style="dim", markup=False)
        for words in judged.health:
            console.print(f"{Path(judged.file).name}: {words}", style="yellow", markup=False)


@click.command()
@files_argument
@click.option(
    "--speed",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1e6),
    help="1 = as it happened, 20 = faster, 0 = without waiting.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="The new result must equal the stored one bit for bit. The last digits of a portal's scores are those of the "
    "kind of processor: verify on one like the lane's.",
)
@energy_option
@profile_option
@risk_option
@json_option
def replay(
    files: tuple[Path, ...],
    speed: float,
    verify: bool,
    energy: Path | None,
    usual: Path | None,
    risk: Path | None,
    as_json: bool,
) -> None:
    """Play recordings again through driver, assembly and judgement, as beside a lane."""
    from rich.text import Text

    from scanner_io.foreign import ForeignFiles
    from scanner_io.recording import SUFFIX
    from triage.service import offline

    if speed != speed:
        raise click.BadParameter("nan is no speed", param_hint="--speed")
    paths = expand(files, SUFFIX)
    judge = new_judge(energy, usual, risk)
    readers = ForeignFiles()
    console = new_console()
    bad = same = 0
    try:
        for path in paths:
            try:
                played = offline.replay_file(path, judge, speed, readers)
            except ScannerError as error:
                bad += 1
                emit({"file": str(path), "same": None, "error": str(error)}) if as_json else console.print(
                    Text(f"error: {error}", style="red")
                )
                continue
            failed = verify and not played.same
            bad += failed
            same += bool(played.same)
            if as_json:
                row = {"file": played.file, "outcome": played.result.outcome, "same": played.same}
                emit({**row, "differs": list(played.differs), "error": None})
            else:
                word = {True: "same", False: "DIFFERS", None: "no stored result"}[played.same]
                line = Text(f"{path.name}  {played.result.outcome}  {word}", style="red" if failed else "")
                console.print(line, *(Text(f"    {d}") for d in played.differs), sep="\n")
    finally:
        readers.close()
        judge.close()
    if not as_json:
        console.print(f"{len(paths)} recordings, {same} with the stored result, {bad} bad")
    if bad or not paths:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _voltages(_context: click.Context, _option: click.Parameter, told: tuple[str, ...]) -> Any:
    """Return kilovolts by energy, or the one number that is given without."""
    try:
        named = [(energy, float(value)) for energy, _, value in (one.rpartition("=") for one in told)]
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 6000, or low=4000 and once more high=6000") from error
    if any(not 1 <= value <= 1e6 for _, value in named) or (len(named) > 1 and not all(energy for energy, _ in named)):
        raise click.BadParameter("expected kilovolts from 1 to 1000000, each with its energy where there are several")
    if not named:
        return None
    return dict(named) if named[0][0] else named[0][1]


kvp_option = click.option(
    "--kvp", multiple=True, callback=_voltages, metavar="[ENERGY=]KILOVOLT",
    help="Source's peak voltage, 6000 for 6 MV, of an energy or of the highest; DICOS wants it, and energies' names "
    "may not tell it. May be given for each.",
)  # fmt: skip


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--n42", type=click.Path(path_type=Path), help="N42.42-2012 file to write: the portal part.")
@click.option("--dicos", type=click.Path(path_type=Path), help="Folder for DICOS files: images and threat report.")
@kvp_option
@click.option("--replace", is_flag=True, help="Write over files that are there.")
def export(
    recording: Path, n42: Path | None, dicos: Path | None, kvp: float | dict[str, float] | None, replace: bool
) -> None:
    """Write RECORDING for other systems: as ANSI N42.42-2012, as DICOS (NEMA IIC 1), or both.

    DICOS needs the extra `dicom`. A file is written for every energy, with the counts as they are, and one with what
    was found; REVIEW is exported as "unknown", for a machine's doubt is no clearance.
    """
    from triage.service import offline

    if n42 is None and dicos is None:
        raise click.UsageError("give --n42 FILE, --dicos FOLDER, or both")
    written = []
    if n42 is not None:
        offline.export_n42(recording, n42, replace=replace)
        written.append(n42)
    if dicos is not None:
        written += offline.export_dicos(recording, dicos, kvp=kvp, replace=replace)
    for path in written:
        click.echo(f"{path} written")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@kvp_option
@click.option("--replace", is_flag=True, help="Write over files that are there.")
def convert(source: Path, target: Path, kvp: float | dict[str, float] | None, replace: bool) -> None:
    """Convert the scan SOURCE to the form that TARGET's name asks for; every count is kept.

    A recording becomes NAME.png or NAME.tif (16 bits, one file an energy, with a NAME.scan.json that makes the
    recording again), NAME.n42, DICOS objects in a folder, or an evidence bundle NAME.evidence.zip; an image, DICOM
    file or folder, sidecar, N42 file, bundle or NAME.scan.json becomes NAME.scan.h5.
    """
    from triage.service.convert import convert as converted

    for path in converted(source, target, kvp=kvp, replace=replace):
        click.echo(f"{path} written")


@click.command()
@files_argument
@json_option
def verify(files: tuple[Path, ...], as_json: bool) -> None:
    """Check recordings: seal, layout, checksums, hashes, times, references, portal lines, result; evidence bundles.

    Of a recording from before there was a seal over its structure it is said that this was not covered: there a flipped
    bit may go unseen that changes no count and no value.
    """
    from rich.text import Text

    from scanner_io import bundle, recording, seal
    from scanner_io.foreign import ForeignFiles

    console = new_console()
    bad = 0
    paths = expand(files, recording.SUFFIX)
    with ForeignFiles() as readers:
        for path in paths:
            packed = path.name.endswith(".zip")
            problems = bundle.check_bundle(path, readers) if packed else readers.check(path)
            bad += bool(problems)
            covered = None if packed or problems else seal.present(path)
            if as_json:
                row = {"sound": not problems, "structure_covered": covered, "problems": [str(p) for p in problems]}
                emit({"file": str(path), **row})
                continue
            words = f"{len(problems)} problems" if problems else "sound" if covered is not False else NOT_COVERED
            console.print(Text(f"{path}: {words}"))
            for problem in problems:
                console.print(Text(f"    {problem}", style="red"))
    if bad or not paths:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
