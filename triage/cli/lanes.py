"""`scanlane run`, `check` and `demo`: lanes and their service."""

from __future__ import annotations

from pathlib import Path

import click

from scanner_io.errors import ConfigError

from .shared import EXIT_BAD_INPUT, EXIT_USAGE, emit, json_option, make_log, new_console


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="End when all sources have ended and everything is stored.")
@json_option
def run(config: Path, once: bool, as_json: bool) -> None:
    """Run the daemon beside the lanes that CONFIG (TOML) names.

    Stops on SIGTERM or Ctrl-C after everything that is open has been stored; a second signal ends it at once.
    """
    from scanner_io import config as configuration
    from triage.service.checkup import check_energy, check_profile, check_risk
    from triage.service.daemon import Daemon, settle_process

    settle_process()
    config = config.resolve()  # as the lanes see it: recordings are known by their paths
    loaded = configuration.load(config)
    if loaded.hub is not None:
        raise ConfigError([f"{config}: has a [hub] table: a hub is begun by `scanlane hub`"])
    problems: list[str] = []
    for lane in loaded.lane:
        check_energy(lane, problems, [])
        check_profile(lane, problems, [])
        check_risk(lane, problems, [])
    if problems:
        raise ConfigError(problems)
    Daemon(loaded, make_log(as_json=as_json), once=once).run()


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for a device's first word.")
@json_option
def check(config: Path, timeout: float, as_json: bool) -> None:
    """Report every problem of CONFIG and of its devices at once."""
    from triage.service.checkup import check_config

    problems, notes = check_config(config, timeout)
    if as_json:
        emit({"config": str(config), "problems": problems, "notes": notes})
    else:
        console = new_console()
        for note in notes:
            console.print(f"ok       {note}", markup=False)
        for problem in problems:
            console.print(f"problem  {problem}", markup=False, style="red")
        console.print(f"{len(problems)} problems" if problems else "no problem found")
    if problems:
        raise click.exceptions.Exit(EXIT_USAGE)


@click.command()
@click.option("--vehicles", default=12, show_default=True, type=click.IntRange(1, 1000), help="Vehicles to let pass.")
@click.option("--seed", default=7, show_default=True, type=int, help="Same seed, same vehicles.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the state folder (recordings, outbox) here.")
@click.option("--console", "page", is_flag=True, help="Decide yourself, in the analyst's page; ends at Ctrl-C.")
@json_option
def demo(vehicles: int, seed: int, keep: Path | None, page: bool, as_json: bool) -> None:
    """Two simulated lanes with portals, the daemon and an analyst, all on this machine.

    Vehicles pass; flagged ones, and clear ones that are selected by risk or at random, appear with their picture, and a
    scripted analyst answers. Ends with a summary in which every vehicle is accounted for. Everything in it is simulated
    and says so.
    """
    from triage.service.demo import run_demo

    summary = run_demo(vehicles, seed, keep, console=None if as_json else new_console(), page=page)
    if as_json:
        emit(summary)
    if summary.get("lost"):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
