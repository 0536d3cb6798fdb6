"""What commands share: options, the console, progress, log lines."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner_io.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_BAD_INPUT, EXIT_USAGE = 1, 2

MISLEADING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that change the direction of writing."""

LEVELS = {"info": "", "warning": "yellow", "error": "bold red"}


class ByDefault(click.Group):
    """A group that takes its first argument for one of its command `default` unless it names a command."""

    def __init__(self, *arguments: Any, default: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command before what names no command."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = [self._default, *args]
        return super().parse_args(ctx, args)


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

risk_option = click.option(
    "--risk", type=click.Path(path_type=Path), help="Risk profile (TOML): the score and its reasons are a finding."
)

analyst_option = click.option("--analyst", default=None, help="Your name in decisions. Default: your login name.")


def new_console(*, stderr: bool = False) -> Console:
    """Return a console of rich on stdout or stderr.

    What is printed comes from devices, manifests and peers as well, and rich passes an escape sequence on: here no text
    reaches the terminal with characters that would move its cursor, rename its window or turn the line around.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Harmless(Console):
        def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
            for segment in super().render(*arguments, **options):
                clean = segment.control is not None or not MISLEADING.search(segment.text)
                yield segment if clean else Segment(MISLEADING.sub("�", segment.text), segment.style)

    return Harmless(stderr=stderr, highlight=False)


def emit(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value))  # ASCII: a file name may hold bytes that are no text


def make_log(*, as_json: bool) -> Callable[..., None]:
    """Return a log function: one line per event, JSON on stdout or words on stderr."""
    console = None if as_json else new_console(stderr=True)
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
def progress_bar(total: int, label: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr and give what advances it by one of `total`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=new_console(stderr=True), transient=True, disable=quiet or total < 2) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def expand(files: tuple[Path, ...], suffix: str) -> list[Path]:
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


def new_judge(energy: Path | None = None, usual: Path | None = None, risk: Path | None = None) -> Any:
    """Return a judge, warm, by an energy calibration, a profile of the lane and a risk profile."""
    from triage.service.lane import Judge, lane_profile

    files = [None if path is None else str(path) for path in (energy, usual, risk)]
    judge = Judge(lane_profile(files[0], files[1], None, files[2]))
    judge.warm_up()
    return judge


rounds_option = click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000))

seed_option = click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Same seed, same run.")

workers_option = click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes to work with."
)


@contextmanager
def worker_processes(count: int) -> Iterator[Any]:
    """Give a pool of processes, or None for one: the result is the same."""
    if count == 1:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool


def cluster_options(command: Any) -> Any:
    """Add the options that name a cluster of Dask."""
    for option in (
        click.option(
            "--wait", "wait_s", default=600.0, show_default=True, type=click.FloatRange(0, 1e6), metavar="SECONDS",
            help="How long a scheduler that is gone is waited for.",
        ),
        click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Key of this client."),
        click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="Certificate of this client."),
        click.option("--tls-ca", type=click.Path(path_type=Path, exists=True), help="Certificate of the cluster's "
                     "authority."),
        click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler of a cluster that runs, tls://host:8786."),
    ):  # fmt: skip
        command = option(command)
    return command


def opener(
    scheduler: str | None, workers: int, tls: tuple[Path | None, Path | None, Path | None], wait_s: float
) -> Callable[[], Any]:
    """Return what opens the cluster that the options name. Raises UsageError, ConfigError without the extra."""
    if len({part is None for part in tls}) > 1:
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key go together")
    try:
        from triage.study.batch_cluster import Cluster
    except ImportError as error:
        raise ConfigError(
            [f"a cluster needs {error.name}, which is not installed: pip install 'scanlane[batch]'"]
        ) from error
    ca, certificate, key = tls
    files = None if ca is None or certificate is None or key is None else (ca, certificate, key)
    errors = new_console(stderr=True)
    return lambda: Cluster(
        scheduler, workers, tls=files, wait_s=wait_s, say=lambda words: errors.print(words, markup=False)
    )
