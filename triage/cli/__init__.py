"""`scanlane`: the command line. Every command is one call into the rooms below; numba is imported only to compute."""

from __future__ import annotations

import os
import sys

import click

from scanner_io import __version__
from scanner_io.errors import ConfigError, ScannerError

from .analyst import decide, watch
from .audit import audit
from .backup import backup
from .batch import batch
from .bench import bench
from .calibrate import calibrate
from .cargo import cargo
from .console import console
from .cost import cost
from .device import device
from .drivers import drivers
from .evaluate import evaluate
from .exchange import exchange
from .files import convert, export, replay, triage, verify
from .hub import hub
from .keys import keys
from .lanes import check, demo, run
from .manual import manual
from .operate import doctor, install, uninstall
from .policy import policy
from .quality import quality
from .release import release
from .report import report
from .retention import retention
from .risk import risk
from .selection import selection
from .shared import EXIT_BAD_INPUT, EXIT_USAGE
from .simulate import simulate
from .study import study
from .torture import torture


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
    As an analyst     scanlane console --connect tcp://127.0.0.1:7410
    The manual        scanlane help

    Exit codes: 0 all good, 1 some input was bad, 2 usage or configuration.
    """  # noqa: D301  (click wants the character itself)


for command in (
    run,
    hub,
    check,
    demo,
    triage,
    replay,
    simulate,
    export,
    convert,
    verify,
    watch,
    console,
    decide,
    keys,
    audit,
    retention,
    backup,
    drivers,
    device,
    manual,
    bench,
    cost,
    evaluate,
    calibrate,
    study,
    batch,
    policy,
    torture,
    risk,
    install,
    uninstall,
    doctor,
    release,
    selection,
    cargo,
    exchange,
    quality,
    report,
):
    cli.add_command(command)
