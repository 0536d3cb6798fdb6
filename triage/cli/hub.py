"""`scanlane hub`: one service for the analysts of many lanes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from scanner_io.errors import ConfigError

from .shared import json_option, make_log


def _show_example(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(files("triage.operate").joinpath("hub.toml").read_text("utf-8"), nl=False)
        context.exit()


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--example", is_flag=True, expose_value=False, is_eager=True, callback=_show_example,
    help="Print a commented configuration and end.",
)  # fmt: skip
@json_option
def hub(config: Path, as_json: bool) -> None:
    """Run the hub that CONFIG (TOML) describes: it takes what lanes offer, and analysts work from it.

    \b
    scanlane hub --example > hub.toml      a configuration to begin with
    scanlane check hub.toml                is it right, and does every lane answer?
    scanlane hub hub.toml
    scanlane console --connect tcp://hub-a:7420,tcp://hub-b:7420

    The hub takes a scan from its lane's service as an analyst does, and says that it has it once the recording is on
    its disk and its row is committed. A decision goes back to the lane, signed, and is in the lane's audit too. Two
    hubs with one database (PostgreSQL) stand in for each other. Nothing is judged again here.

    Stops on SIGTERM or Ctrl-C; what is undecided goes back to the lanes, and is not lost. More: scanlane help hub.
    """  # noqa: D301  (click wants the character itself)
    from scanner_io import config as configuration
    from triage.service.daemon import Daemon, settle_process

    settle_process()
    config = config.resolve()
    loaded = configuration.load(config)
    if loaded.hub is None:
        raise ConfigError([f"{config}: has no [hub] table: a lane's service is begun by `scanlane run`"])
    Daemon(loaded, make_log(as_json=as_json)).run()
