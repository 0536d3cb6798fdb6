"""`scanlane`: the command line. Every command is one call into the rooms below; numba is imported only to compute."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner_io import __version__
from scanner_io.errors import ConfigError, DataError, ScannerError
from triage.cli_audit import audit
from triage.cli_keys import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from scanner_io.security import Identity

EXIT_BAD_INPUT, EXIT_USAGE = 1, 2
LEVELS = {"info": "", "warning": "yellow", "error": "bold red"}

files_argument = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of words.")
connect_option = click.option(
    "--connect", "address", default="tcp://127.0.0.1:7410", show_default=True, help="Address of the service."
)
energy_option = click.option(
    "--energy", type=click.Path(path_type=Path), help="Energy calibration (TOML) of the lane the recordings are of."
)
key_option = click.option(
    "--key", type=click.Path(path_type=Path), help="Your key file, where the service has keys: see `scanlane keys`."
)
profile_option = click.option(
    "--profile", "usual", type=click.Path(path_type=Path),
    help="What is usual on the lane: file of `scanlane calibrate`. Without it findings have no p-value.",
)  # fmt: skip
analyst_option = click.option("--analyst", default=None, help="Your name in decisions. Default: your login name.")


def main() -> None:
    """Entry point of the `scanlane` command."""
    # OpenBLAS and OpenMP would start threads beside the lanes' own.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        code = cli(standalone_mode=False)  # returns the code of a raised Exit
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_USAGE)
    except ScannerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:
        click.echo(f"error: {error}; check that the place exists, its rights and its free space", err=True)
        sys.exit(EXIT_BAD_INPUT)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="scanlane")
def cli() -> None:
    """Scanner acquisition and triage for customs lanes.

    \b
    Begin with        scanlane demo
    Judge files       scanlane triage scan.jpg portal.csv recording.scan.h5
    Beside a lane     scanlane check lane.toml && scanlane run lane.toml
    As an analyst     scanlane watch --connect tcp://127.0.0.1:7410

    Exit codes: 0 all good, 1 some input was bad, 2 usage or configuration.
    """  # noqa: D301  (click wants the character itself)


# ------------------------------------------------------------------------------------------------------------ helpers


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _emit(value: Any) -> None:
    click.echo(json.dumps(value))  # ASCII: a file name may hold bytes that are no text


def make_log(*, as_json: bool) -> Callable[..., None]:
    """Return a log function: one line per event, JSON on stdout or words on stderr."""
    console = None if as_json else _console(stderr=True)
    lost = 0

    def log(event: str, *, level: str = "info", **fields: Any) -> None:
        nonlocal lost
        try:
            if lost:
                write("log_lost", "warning", {"text": f"{lost} lines before this could not be written"})
            write(event, level, fields)
            lost = 0
        except OSError:  # a full disk, a reader that has gone: the lanes go on, and the gap is told once it can be
            lost += 1

    def write(event: str, level: str, fields: dict[str, Any]) -> None:
        if console is None:
            sys.stdout.write(json.dumps({"t": time.time(), "level": level, "event": event, **fields}) + "\n")
            sys.stdout.flush()
            return
        from rich.text import Text

        line = Text(time.strftime("%H:%M:%S ")) + Text(f"{event:18}", style=LEVELS[level] or "bold")
        for key, value in fields.items():
            if value not in (None, "", False):
                # Names and texts come from devices and peers: control characters must not reach the terminal.
                text = "".join(c if c.isprintable() else "�" for c in str(value))
                line.append(f" {key}=", style="dim")
                line.append(text)
        console.print(line, soft_wrap=True)

    return log


@contextmanager
def _progress(total: int, label: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=_console(stderr=True), transient=True, disable=quiet or total < 2) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def _expand(files: tuple[Path, ...], suffix: str) -> list[Path]:
    """Return the files named; a folder stands for the files in it that end with `suffix`.

    Raises DataError for a folder that has none: nothing found must not look like nothing wrong.
    """
    found: list[Path] = []
    for path in files:
        inside = sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path]
        if not inside:
            raise DataError(
                f"{path}: no recording (*{suffix}) in this folder or below; name other files one by one, "
                f"such as {path / '*.jpg'}"
            )
        found += inside
    return found


def _new_judge(energy: Path | None = None, usual: Path | None = None) -> Any:
    from triage.service.lane import Judge, lane_profile

    judge = Judge(lane_profile(None if energy is None else str(energy), None if usual is None else str(usual)))
    judge.warm_up()
    return judge


# ------------------------------------------------------------------------------------------------------------ service


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="End when all sources have ended and everything is stored.")
@json_option
def run(config: Path, once: bool, as_json: bool) -> None:
    """Run the daemon beside the lanes that CONFIG (TOML) names.

    Stops on SIGTERM or Ctrl-C after everything that is open has been stored; a second signal ends it at once.
    """
    from scanner_io import config as configuration
    from triage.service.checkup import check_energy, check_profile
    from triage.service.daemon import Daemon

    config = config.resolve()  # as the lanes see it: recordings are known by their paths
    loaded = configuration.load(config)
    problems: list[str] = []
    for lane in loaded.lane:
        check_energy(lane, problems, [])
        check_profile(lane, problems, [])
    if problems:
        raise ConfigError(problems)
    Daemon(loaded, make_log(as_json=as_json), once=once).run()


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for a device's first word.")
@json_option
def check(config: Path, timeout: float, as_json: bool) -> None:
    """Report every problem of CONFIG and of its devices at once."""
    from triage.service.checkup import check_config

    problems, notes = check_config(config, timeout)
    if as_json:
        _emit({"config": str(config), "problems": problems, "notes": notes})
    else:
        console = _console()
        for note in notes:
            console.print(f"ok       {note}", markup=False)
        for problem in problems:
            console.print(f"problem  {problem}", markup=False, style="red")
        console.print(f"{len(problems)} problems" if problems else "no problem found")
    if problems:
        raise click.exceptions.Exit(EXIT_USAGE)


@cli.command()
@click.option("--vehicles", default=12, show_default=True, type=click.IntRange(1, 1000), help="Vehicles to let pass.")
@click.option("--seed", default=7, show_default=True, type=int, help="Same seed, same vehicles.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the state folder (recordings, outbox) here.")
@json_option
def demo(vehicles: int, seed: int, keep: Path | None, as_json: bool) -> None:
    """Two simulated lanes with portals, the daemon and an analyst, all on this machine.

    Vehicles pass, flagged ones appear with their picture, a scripted analyst answers. Ends with a summary in which
    every vehicle is accounted for. Everything in it is simulated and says so.
    """
    from triage.service.demo import run_demo

    summary = run_demo(vehicles, seed, keep, console=None if as_json else _console())
    if as_json:
        _emit(summary)
    if summary["lost"]:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


# -------------------------------------------------------------------------------------------------------------- files


@cli.command()
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
@json_option
def triage(
    files: tuple[Path, ...], save: Path | None, polarity: str, speed_unit: str, utc_offset_h: float,
    previous: Path | None, energy: Path | None, usual: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge images, recordings, portal daily files and N42 files.

    One line per scan or portal passage. A bad file is reported, the rest go on, and the exit code is 1. A daily file
    whose stamps have no date (06-00-00.000) takes that of its first line from its name (portal 2026-01-05.csv).
    """
    from scanner_io.formats.n42 import N42Settings
    from scanner_io.formats.raster import RasterOptions
    from triage.service import offline
    from triage.service.earlier import EarlierScans

    options = RasterOptions(polarity=polarity)  # type: ignore[arg-type]
    n42_settings = N42Settings(utc_offset_h=utc_offset_h, speed_unit=speed_unit)
    paths = _expand(files, ".scan.h5")
    earlier = None if previous is None else EarlierScans(_expand((previous,), ".scan.h5"))
    judge = _new_judge(energy, usual)
    bad, rows = 0, []
    pictures: set[str] = set()
    try:
        with _progress(len(paths), "judging", quiet=as_json) as advance:
            for path in paths:
                for judged in offline.judge_file(path, judge, options, n42_settings, earlier):
                    bad += judged.error is not None
                    if save is not None:
                        _save_picture(save, judged, pictures, judge.profile.image)
                    if as_json:
                        _emit(judged.row())
                    else:
                        rows.append(judged)
                advance()
    finally:
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

    console = _console()
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
        for words in judged.health:
            console.print(f"{Path(judged.file).name}: {words}", style="yellow", markup=False)


@cli.command()
@files_argument
@click.option(
    "--speed",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1e6),
    help="1 = as it happened, 20 = faster, 0 = without waiting.",
)
@click.option("--verify", is_flag=True, help="The new result must equal the stored one bit for bit.")
@energy_option
@profile_option
@json_option
def replay(
    files: tuple[Path, ...], speed: float, verify: bool, energy: Path | None, usual: Path | None, as_json: bool
) -> None:
    """Play recordings again through driver, assembly and judgement, as beside a lane."""
    from rich.text import Text

    from scanner_io.recording import SUFFIX
    from triage.service import offline

    if speed != speed:
        raise click.BadParameter("nan is no speed", param_hint="--speed")
    paths = _expand(files, SUFFIX)
    judge = _new_judge(energy, usual)
    console = _console()
    bad = same = 0
    try:
        for path in paths:
            try:
                played = offline.replay_file(path, judge, speed)
            except ScannerError as error:
                bad += 1
                _emit({"file": str(path), "same": None, "error": str(error)}) if as_json else console.print(
                    Text(f"error: {error}", style="red")
                )
                continue
            failed = verify and not played.same
            bad += failed
            same += bool(played.same)
            if as_json:
                row = {"file": played.file, "outcome": played.result.outcome, "same": played.same}
                _emit({**row, "differs": list(played.differs), "error": None})
            else:
                word = {True: "same", False: "DIFFERS", None: "no stored result"}[played.same]
                line = Text(f"{path.name}  {played.result.outcome}  {word}", style="red" if failed else "")
                console.print(line, *(Text(f"    {d}") for d in played.differs), sep="\n")
    finally:
        judge.close()
    if not as_json:
        console.print(f"{len(paths)} recordings, {same} with the stored result, {bad} bad")
    if bad or not paths:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@cli.group(invoke_without_command=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the recordings.")
@click.option("--vehicles", default=10, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--seed", default=1, show_default=True, type=int, help="Same seed, same counts.")
@click.option("--lane", default="sim", show_default=True, help="Name of the lane.")
@click.option("--columns", default=None, type=click.IntRange(64, 200_000), help="Lines per scan.")
@click.option("--channels", default=None, type=click.IntRange(64, 4096), help="Detector channels.")
@click.option(
    "--codec", type=click.Choice(["bitshuffle-lz4", "gzip", "none"]), default="bitshuffle-lz4", show_default=True,
    help="gzip opens in viewers without plugins.",
)  # fmt: skip
@click.option("--cargo", metavar="KIND[,KIND]", help="Only these loads; a wrong name lists all.")
@click.option("--carriers", metavar="KIND[,KIND]", help="These vehicles instead of trailers with one container.")
@click.option("--threats", type=click.FloatRange(0, 1), metavar="SHARE", help="Vehicles with what does not belong.")
@click.option("--threat-kinds", metavar="KIND[,KIND]", help="Only these threats; a wrong name lists all.")
@click.option("--energies", type=click.IntRange(1, 2), default=None, help="Single or dual energy.")
@click.option("--display", is_flag=True, help="8-bit grey values windowed for display, as archives hold, one energy.")
@click.option(
    "--truth", type=click.Path(path_type=Path, dir_okay=False),
    help="Write what every vehicle really carries, threats with their boxes, as JSON; no recording holds it.",
)  # fmt: skip
@json_option
@click.pass_context
def simulate(
    context: click.Context, out: Path | None, vehicles: int, seed: int, lane: str, columns: int | None,
    channels: int | None, codec: str, cargo: str | None, carriers: str | None, threats: float | None,
    threat_kinds: str | None, energies: int | None, display: bool, truth: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Write recordings of simulated vehicles, judged; labelled simulated down to the file.

    `simulate portal` plays a radiation portal alone, as a device that a driver connects to.
    """
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise click.UsageError("--out: which folder shall hold the recordings?")
    from triage.service.simulated import simulate_recordings

    told: dict[str, Any] = {
        "columns": columns, "channels": channels, "energies": 1 if display else energies, "threat_share": threats,
        "display": True if display else None, "bits": 8 if display else None,
        "cargo": _alike(cargo), "carriers": _alike(carriers), "threats": _alike(threat_kinds),
    }  # fmt: skip
    settings = {k: v for k, v in told.items() if v is not None}
    judge = _new_judge()
    try:
        with _progress(vehicles, "simulating", quiet=as_json) as advance:
            for path, result in simulate_recordings(
                out,
                vehicles,
                seed,
                lane,
                judge,
                codec=codec,  # type: ignore[arg-type]
                truth=truth,
                **settings,
            ):
                if as_json:
                    _emit({"file": str(path), "outcome": result.outcome, "load": result.load})
                advance()
    finally:
        judge.close()
    if not as_json:
        _console().print(f"{vehicles} recordings in {out}", markup=False)


def _alike(kinds: str | None) -> dict[str, float] | None:
    """Return equal weights for the kinds in a comma-separated list."""
    return None if kinds is None else {kind.strip(): 1.0 for kind in kinds.split(",")}


@simulate.command("portal")
@click.option("--tcp", metavar="HOST:PORT", help="Serve lines to any number of clients; port 0 = any free one.")
@click.option("--pty", "pty", is_flag=True, help="Speak on a pseudo terminal, as on a serial line.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the daily file that a receiver would keep.")
@click.option(
    "--form", type=click.Choice(["dated", "dateless", "unpadded"]), default="dated", show_default=True,
    help="How the daily file writes time.",
)  # fmt: skip
@click.option("--start", default="2026-01-05T06:00:00+00:00", show_default=True, help="First instant of a daily file.")
@click.option("--seed", default=1, show_default=True, type=int, help="Same seed, same bytes.")
@click.option("--passes", default=None, type=click.IntRange(1), help="Vehicles. Default: 20 in a file, else endless.")
@click.option(
    "--gap", default=40.0, show_default=True, type=click.FloatRange(0.6), help="Mean seconds between vehicles."
)
@click.option("--speed", default=1.0, show_default=True, type=click.FloatRange(0.01, 1000), help="Times real time.")
@click.option(
    "--faults", metavar="SHARE|FILE",
    help="Share of vehicles with a fault drawn at random, or a JSON file with the list of faults to play.",
)  # fmt: skip
@click.option("--extensions", is_flag=True, help="Also energy windows and exact neutron background (AB1 AR AS AA NB1).")
@click.option(
    "--no-setup", is_flag=True,
    help="Send no set-up lines. Nothing else says that it is a simulation: set simulated = true in the lane's device.",
)  # fmt: skip
@click.option("--nsigma", default=5.0, show_default=True, type=click.FloatRange(0.1, 99), help="Gamma alarm setting.")
@click.option("--truth", type=click.Path(path_type=Path), help="Write what really passed and what was broken, as JSON.")
@click.option("--wait", is_flag=True, help="Begin when the first reader has come.")
def simulate_portal(**told: Any) -> None:
    """Play a simulated radiation portal: Rapiscan lines over TCP, on a serial line, or as a daily file.

    Prints one JSON object with the address, plays until the last vehicle has passed or Ctrl-C, and prints what it
    played. A driver reaches it as any portal: address = "tcp://127.0.0.1:PORT" or "serial:///dev/pts/N".
    """
    from triage.service.simulated import play_portal

    ways = [name for name in ("tcp", "pty", "out") if told[name]]
    if len(ways) != 1:
        raise click.UsageError("one of --tcp, --pty and --out: how shall the portal speak?")
    play_portal(emit=_emit, **told)


@cli.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--n42", "out", required=True, type=click.Path(path_type=Path), help="N42.42-2012 file to write.")
@click.option("--replace", is_flag=True, help="Write over a file that is there.")
def export(recording: Path, out: Path, replace: bool) -> None:
    """Write the portal part of RECORDING as an ANSI N42.42-2012 file."""
    from triage.service import offline

    offline.export_n42(recording, out, replace=replace)
    click.echo(f"{out} written")


@cli.command()
@files_argument
@json_option
def verify(files: tuple[Path, ...], as_json: bool) -> None:
    """Check recordings: layout, checksums, hashes, times, references, portal lines, result."""
    from rich.text import Text

    from scanner_io import recording

    console = _console()
    bad = 0
    paths = _expand(files, recording.SUFFIX)
    for path in paths:
        problems = recording.check(path)
        bad += bool(problems)
        if as_json:
            _emit({"file": str(path), "sound": not problems, "problems": [str(p) for p in problems]})
            continue
        console.print(Text(f"{path}: {'sound' if not problems else f'{len(problems)} problems'}"))
        for problem in problems:
            console.print(Text(f"    {problem}", style="red"))
    if bad or not paths:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


# ----------------------------------------------------------------------------------------------------------- analysts


@cli.command()
@connect_option
@analyst_option
@key_option
@click.option("--capacity", default=1, show_default=True, type=click.IntRange(1, 100), help="Scans to hold at once.")
@click.option("--count", default=None, type=click.IntRange(1), help="End after so many scans.")
@json_option
def watch(address: str, analyst: str | None, key: Path | None, capacity: int, count: int | None, as_json: bool) -> None:
    """Be an analyst in a terminal: flagged scans with picture, portal profile and findings; answer c, x or r.

    With --json each offered scan is printed as one line and stays yours while this runs; answer with
    `scanlane decide` under the same name.
    """
    from triage.service.desk import watch_queue

    watch_queue(
        address, _named(analyst, key), capacity, count, identity=_identity(key),
        console=None if as_json else _console(), emit=_emit,
    )  # fmt: skip


def _identity(key: Path | None) -> Identity | None:
    from scanner_io import security

    return None if key is None else security.load_identity(key)


def _named(analyst: str | None, key: Path | None) -> str:
    """Return the analyst's name: as told, that of the key, or the login name."""
    from scanner_io.client import default_analyst

    return analyst or ("" if key is not None else default_analyst())


@cli.command()
@click.argument("scan")
@click.argument("verdict", type=click.Choice(["clear", "inspect", "rescan"]))
@connect_option
@analyst_option
@key_option
@click.option("--note", default="", help="Why, in words.")
@click.option("--code", "codes", multiple=True, type=int, help="Decision code of the site; may be repeated.")
@json_option
def decide(
    scan: str, verdict: str, address: str, analyst: str | None, key: Path | None, note: str, codes: tuple[int, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Decide SCAN: clear, inspect or rescan. Returns once the service has committed it."""
    from scanner_io.client import Workstation, plain

    with Workstation(address, _named(analyst, key), capacity=0, identity=_identity(key)) as desk:
        offer = desk.claim(scan)
        decided = desk.decide(offer, verdict, note=note, codes=codes)  # type: ignore[arg-type]
    if as_json:
        _emit(plain(decided))
    elif decided.applied:
        click.echo(f"{scan}: {verdict}, committed")
    if not decided.applied:
        raise ScannerError(f"{scan}: the decision is kept but not applied: {decided.reason}")


cli.add_command(keys)
cli.add_command(audit)


# ------------------------------------------------------------------------------------------------------------- others


@cli.group()
def drivers() -> None:
    """What scanlane can speak to."""


@drivers.command("list")
@json_option
def drivers_list(as_json: bool) -> None:
    """List the known drivers with their settings."""
    import msgspec
    from rich.table import Table
    from rich.text import Text

    from scanner_io import driver

    rows: list[dict[str, Any]] = []
    for name, module_name in driver.names().items():
        try:
            module = driver.load(name)
        except ConfigError as error:
            rows.append({"name": name, "module": module_name, "about": "", "settings": {}, "error": str(error)})
            continue
        about = (module.__doc__ or "").strip().splitlines()[0]
        settings = {
            f.name: "required" if f.required else repr(f.default) for f in msgspec.structs.fields(module.Config)
        }
        rows.append({"name": name, "module": module_name, "about": about, "settings": settings, "error": None})
    if as_json:
        for row in rows:
            _emit(row)
    else:
        table = Table("driver", "what", "settings", box=None, header_style="bold")
        for row in rows:
            words = ", ".join(k if v == "required" else f"[{k}]" for k, v in row["settings"].items())
            table.add_row(row["name"], Text(row["error"] or row["about"]), Text(words))
        _console().print(table)
    if any(row["error"] for row in rows):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@cli.group()
def bench() -> None:
    """Measure against named peers, interleaved in one run."""


@bench.command("triage")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(3, 1000))
@click.option("--columns", default=5000, show_default=True, type=click.IntRange(500, 20_000))
@click.option("--quick", is_flag=True, help="Without naive numpy/scipy and scikit-image (two minutes less).")
@json_option
def bench_triage(rounds: int, columns: int, quick: bool, as_json: bool) -> None:
    """The image pipeline against OpenCV and memcpy, with the agreement checked in the same run.

    Needs a source checkout: the peers live beside the tests. Run nothing else meanwhile.
    """
    from triage.study.bench import bench_triage as measure

    _bench(lambda progress: measure(rounds=rounds, width=columns, quick=quick, progress=progress), rounds, as_json)


def _bench(measure: Callable[[Callable[[int, int], None]], dict[str, Any]], rounds: int, as_json: bool) -> None:
    """Run a benchmark with a progress bar and print its report; figures of work that is wrong are an error."""
    with _progress(rounds, "rounds", quiet=as_json) as advance:
        report = measure(lambda *_: advance())
    if as_json:
        _emit(report)
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("", "median", "min", "max", box=None, header_style="bold")
        for name, cells in _bench_rows(report):
            table.add_row(Text(name), *(Text(cell) for cell in cells))
        _console().print(table)
    wrong = [name for name in ("agreement_ok", "read_back_equal") if report.get(name) is False]
    if wrong:
        raise ScannerError(
            f"bench: {wrong[0]} is false, so what was timed is not what was to be done and no ratio counts; "
            "see `agreement` of --json for what differs"
        )


def _bench_rows(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield name and cells of every figure, ratios with median, min and max."""
    for name, value in report.items():
        if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
            more = {k: v for k, v in value.items() if k not in ("median", "min", "max")}
            yield f"{prefix}{name}", [f"{value[k]:g}" for k in ("median", "min", "max")]
            yield from _bench_rows(more, f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from _bench_rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", [f"{value:g}" if isinstance(value, float) else str(value)]


rounds_option = click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000))
folder_option = click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Measure on the disk of this folder. Default: the system's temporary folder.",
)  # fmt: skip


@bench.command("record")
@rounds_option
@click.option("--columns", default=5000, show_default=True, type=click.IntRange(64, 20_000))
@folder_option
@json_option
def bench_record(rounds: int, columns: int, folder: Path | None, as_json: bool) -> None:
    """A durable recording against writing the raw bytes and fsync, on the same disk."""
    from triage.study.bench_record import bench_record as measure

    _bench(lambda progress: measure(folder, rounds=rounds, columns=columns, progress=progress), rounds, as_json)


@bench.command("deliver")
@rounds_option
@folder_option
@json_option
def bench_deliver(rounds: int, folder: Path | None, as_json: bool) -> None:
    """From the outbox into an analyst's hands, against the same bytes over a bare TCP socket."""
    from triage.study.bench_deliver import bench_deliver as measure

    _bench(lambda progress: measure(folder, rounds=rounds, progress=progress), rounds, as_json)


@bench.command("startup")
@rounds_option
@json_option
def bench_startup(rounds: int, as_json: bool) -> None:
    """Command line, kernels and daemon until they are ready; kernels compiled once, then from their cache."""
    from triage.study.bench_startup import bench_startup as measure

    _bench(lambda progress: measure(rounds=rounds, progress=progress), rounds, as_json)


# ------------------------------------------------------------------------------------------------------------- studies


seed_option = click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Same seed, same run.")
workers_option = click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes to work with."
)


@contextmanager
def _workers(count: int) -> Iterator[Any]:
    """Give a pool of processes, or None for one: the result is the same."""
    if count == 1:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool


@cli.group()
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
        _progress(study.steps(passes, real=logs is not None), "evaluating", quiet=as_json) as advance,
        _workers(workers) as pool,
    ):
        report = study.evaluate_portal(
            passes=passes, injections=injections, seed=seed, logs=logs, out=out,
            passes_of_faults=passes_of_faults, progress=advance, pool=pool,
        )  # fmt: skip
    if as_json:
        _emit(report)
        return
    from rich.table import Table
    from rich.text import Text

    from triage.study.plot_portal import plain

    table = Table(show_header=False, box=None)
    for name, text in plain(report):
        table.add_row(Text(name, style="bold"), Text(text))
    _console().print(table)


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

    FOLDER holds images or recordings, with or without a manifest.csv (file, declared_hs4, texture). Exit code 1 also
    where the placebo or the leak check fails: then no figure may be believed.
    """
    from triage.study import evaluate_image as study

    work = study.prepare(
        folder, per_image=per_image, seeds=seeds, quick=quick, unseen=unseen, profile=profile, seed=seed,
        most_folds=most_folds, learn_per_image=learn_per_image,
    )  # fmt: skip
    with _progress(len(work.jobs), "evaluating", quiet=as_json) as advance, _workers(workers) as pool:
        report = study.evaluate_image(work, out=out, progress=advance, pool=pool)
    if as_json:
        _emit(report)
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
    console = _console()
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
        _progress(study.steps(clean, threats), "simulating", quiet=as_json) as advance,
        _workers(workers) as pool,
    ):
        report = study.evaluate_findings(clean=clean, threats=threats, seed=seed, progress=advance, pool=pool)
    if as_json:
        _emit(report)
        return
    from rich.table import Table

    head, *lines = study.rows(report)
    table = Table(*head, box=None, header_style="bold", title="SIMULATED, uncalibrated; % with 95 % intervals")
    for line in lines:
        table.add_row(*line)
    _console().print(table)


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
        _emit(report)
        return
    console = _console()
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

    with _progress(2 * scans, "simulating", quiet=as_json) as advance:
        report = study.evaluate_simulator(
            folder or study.default_folder(), scans=scans, seed=seed, out=out, progress=advance
        )
    if as_json:
        _emit(report)
        return
    console = _console()
    console.print(study.table(report))
    for line in study.in_words(report):
        console.print(line, markup=False, soft_wrap=True)


class _LaneByDefault(click.Group):
    """A group whose first argument is an archive unless it is one of its commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command `lane` before what names no command."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["lane", *args]
        return super().parse_args(ctx, args)


@cli.group(cls=_LaneByDefault, invoke_without_command=False)
def calibrate() -> None:
    """Learn what is usual on a lane from its own scans, or make constants of judgement anew.

    \b
    scanlane calibrate ARCHIVE… --out north.profile     the same as `scanlane calibrate lane`
    scanlane calibrate show north.profile               what is in it
    """  # noqa: D301  (click wants the character itself)


@calibrate.command("lane")
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Profile to write, over an older one.")
@click.option(
    "--flag-rate", default=0.05, show_default=True, type=click.FloatRange(0, 0.5, min_open=True),
    help="Share of innocent scans that findings may flag at most.",
)  # fmt: skip
@click.option("--lane", default=None, help="Learn from this lane's scans only. Default: all, which must be of one.")
@click.option(
    "--find-code", "find_codes", multiple=True, type=int,
    help="Decision code that means a find; such scans are not learned from. May be repeated.",
)  # fmt: skip
@click.option(
    "--polarity", type=click.Choice(["auto", "air_bright", "air_dark"]), default="auto", show_default=True,
    help="Whether air is bright or dark in image files.",
)  # fmt: skip
@energy_option
@workers_option
@json_option
def calibrate_lane_command(
    archive: tuple[Path, ...], out: Path, flag_rate: float, lane: str | None, find_codes: tuple[int, ...],
    polarity: str, energy: Path | None, workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Learn what is usual in ARCHIVE: recordings, images, or folders of them.

    The profile goes into a lane's table as `profile = "FILE"`, or to `triage` and `replay` as --profile. Findings then
    have a p-value and flag at most the promised share of innocent scans. Scans that are unusable, that the portal
    alarmed at, or that had a find are left out and named.
    """
    from scanner_io import lane_profile
    from triage.study import calibrate_lane as study

    files = study.files_of(archive)
    with _progress(len(files), "learning", quiet=as_json) as advance, _workers(workers) as pool:
        profile, sent = study.calibrate_lane(
            archive, flag_rate=flag_rate, energy=energy, polarity=polarity, lane=lane, find_codes=find_codes,
            progress=advance, pool=pool,
        )  # fmt: skip
    report = study.report_of(lane_profile.write(out, profile), sent)
    _print_profile({"file": str(out), **report}, as_json)


@calibrate.command("show")
@click.argument("profile", type=click.Path(path_type=Path))
@click.option(
    "--state", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="State folder of the lane's daemon: how the promise has been kept since the profile came into force.",
)  # fmt: skip
@json_option
def calibrate_show(profile: Path, state: Path | None, as_json: bool) -> None:
    """Show what a PROFILE was learned from and what it promises."""
    from scanner_io import lane_profile
    from triage.service.promise import kept_watch
    from triage.study.calibrate_lane import report_of

    learned = lane_profile.read(profile)
    report = {"file": str(profile), **report_of(learned)}
    if state is not None:
        watch = kept_watch(state, learned)
        report["since"] = {"scans": watch.scans, "flagged": watch.flagged, "stale": watch.stale}
    _print_profile(report, as_json)


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
    with _progress(steps, "evaluating", quiet=as_json) as advance, _workers(workers) as pool:
        report = study.evaluate_calibration(
            size, seed=seed, flag_rate=flag_rate, cache=cache, progress=advance, pool=pool
        )
    if as_json:
        _emit(report)
        return
    for line in study.in_words(report):
        _console().print(line, markup=False, soft_wrap=True)


def _print_profile(report: dict[str, Any], as_json: bool) -> None:
    from triage.study.calibrate_lane import in_words

    if as_json:
        _emit(report)
        return
    console = _console()
    for line in in_words(report):
        console.print(line, markup=False, soft_wrap=True)


@calibrate.command("portal")
@click.option("--passes", default=100_000, show_default=True, type=click.IntRange(1000), help="Passages simulated.")
@seed_option
@workers_option
@json_option
def calibrate_portal_command(passes: int, seed: int, workers: int, as_json: bool) -> None:
    """Scores that passages without a source reach: the constants of triage/analysis/portal_null.py."""
    from triage.study.calibrate_portal import calibrate_portal, in_python, parts

    with _progress(len(parts(passes)), "simulating", quiet=as_json) as advance, _workers(workers) as pool:
        report = calibrate_portal(passes, seed, advance, pool)
    if as_json:
        _emit(report)
        return
    click.echo(in_python(report))


@cli.group()
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
    with _progress(per_image * len(archive.sources), "inserting", quiet=as_json) as advance:
        fuser, report = fuser_file.train_fuser(
            archive, per_image=per_image, seed=seed, options=options, progress=advance
        )
    report |= {"file": str(out), "bytes": fuser_file.write_fuser(fuser, out), "thresholds": fuser.thresholds}
    if as_json:
        _emit(report)
        return
    for name, value in report.items():
        _console().print(f"{name:12} {value}", markup=False)


@study.command("odd-one-out")
@files_argument
@json_option
def odd_one_out_command(files: tuple[Path, ...], as_json: bool) -> None:
    """The strange box of every lot that one shipper declared alike, by the boxes of the lot alone.

    A lot is at least 5 recordings of one consignor, consignee and declared goods, each within two weeks of the next.
    """
    from triage.study import odd_one_out

    paths = _expand(files, ".scan.h5")
    with _progress(len(paths), "reading", quiet=as_json) as advance:
        report = odd_one_out.study(paths, advance)
    if as_json:
        _emit(report)
    else:
        _print_lots(report, odd_one_out.LEVEL)
    if report.unread:
        sys.exit(1)


def _print_lots(report: Any, level: float) -> None:
    from rich.text import Text

    console = _console()
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


if __name__ == "__main__":
    main()
