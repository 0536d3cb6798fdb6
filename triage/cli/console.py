"""`scanlane console`: the analyst's web page."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from scanner_io.errors import ConfigError

from .shared import analyst_option, emit, json_option


@click.command()
@click.option(
    "--connect",
    "addresses",
    multiple=True,
    default=("tcp://127.0.0.1:7410",),
    show_default=True,
    help="Address of a service; may be repeated.",
)
@analyst_option
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Your key file, where services have keys: one for all, or one per address in their order.",
)
@click.option("--port", default=7480, show_default=True, type=click.IntRange(0, 65535), help="Of the page; 0 for any.")
@click.option("--state", type=click.Path(path_type=Path), help="Folder of the console's journal.  [default: per user]")
@click.option("--undo", "hold_s", default=5.0, show_default=True, help="Seconds in which a decision can be undone.")
@click.option("--memory", "memory_mb", default=1500, show_default=True, help="MB for scans beside the open one.")
@click.option("--keep", "keep_mb", default=2000, show_default=True, help="MB of disk for recordings to compare with.")
@click.option(
    "--training", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of scans to train on: of `scanlane simulate --truth` or `scanlane study training-set`.",
)  # fmt: skip
@click.option(
    "--training-in-live", is_flag=True, help="Mix them into the live queue; recorded as training all the same."
)
@click.option(
    "--second-reading",
    "archive",
    metavar="STATE_DIR|URL",
    help="Archive whose kept samples of cleared scans you read again, blind: see `scanlane quality`.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in this machine's browser.")
@json_option
def console(
    addresses: tuple[str, ...], analyst: str | None, keys: tuple[Path, ...], port: int, state: Path | None,
    hold_s: float, memory_mb: int, keep_mb: int, training: Path | None, training_in_live: bool, archive: str | None,
    opens: bool, as_json: bool,
) -> None:  # fmt: skip
    """Be an analyst in a browser on this machine: queue, 16-bit pictures, portal profile, decisions by keyboard.

    Prints the address of the page, which works once. Nothing is loaded from anywhere else.
    """
    try:
        from triage.console.serve import default_state_dir, run_console
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"the console needs the package {error.name}: install it by  pip install 'scanlane[console]'"]
        ) from error
    from scanner_io import security
    from scanner_io.client import default_analyst

    identities = tuple(security.load_identity(key) for key in keys)
    reader = identities[0].name if identities else analyst or default_analyst()
    second = None
    if archive is not None:
        from triage.service import store
        from triage.service.second_reader import SecondReader

        second = SecondReader(store.named(archive), reader)
    if len(keys) not in (0, 1, len(addresses)):
        raise ConfigError([f"--key: {len(keys)} for {len(addresses)} addresses; give one for all, or one for each"])

    def say(address: str) -> None:
        if as_json:
            emit({"event": "listening", "url": address})
        else:
            click.echo(f"console:  {address}")
        if opens and not webbrowser.open(address):
            click.echo("no browser is known here: open the address yourself", err=True)

    run_console(
        addresses, reader, state or default_state_dir(), port=port, identities=identities, say=say, hold_s=hold_s,
        memory_bytes=memory_mb * 1_000_000, keep_bytes=keep_mb * 1_000_000, training=training,
        training_in_live=training_in_live, second=second,
    )  # fmt: skip
