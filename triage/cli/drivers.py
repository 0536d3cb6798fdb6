"""`scanlane drivers`: what can be connected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scanner_io.errors import ConfigError

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console, progress_bar


@click.group()
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
            emit(row)
    else:
        table = Table("driver", "what", "settings", box=None, header_style="bold")
        for row in rows:
            words = ", ".join(k if v == "required" else f"[{k}]" for k, v in row["settings"].items())
            table.add_row(row["name"], Text(row["error"] or row["about"]), Text(words))
        new_console().print(table)
    if any(row["error"] for row in rows):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@drivers.command()
@click.argument("name")
@click.option("--rig", default="", metavar="MODULE:CLASS", help="Fake peer: module:Class, or file.py:Class.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A lane's TOML with the real device.")
@click.option("--check", "checks", multiple=True, help="Only this; may be repeated.")
@json_option
def conform(name: str, rig: str, config_file: Path | None, checks: tuple[str, ...], as_json: bool) -> None:
    """Check that driver NAME does what every driver must, against a fake peer or the real device.

    \b
    scanlane drivers conform acme --rig acme_rig.py:AcmeRig
    scanlane drivers conform rpm_rapiscan --config lane.toml

    With a real device the passages asked for must be made: drive a vehicle through. Every check runs in a process of
    its own. Exit code 1 where one is not met; the report names it, what was seen, and what to do.
    """  # noqa: D301  (click wants the character itself)
    import msgspec
    from rich.table import Table
    from rich.text import Text

    from scanner_io import conformance

    if bool(rig) == (config_file is not None):
        raise click.UsageError("give --rig MODULE:CLASS for a fake peer, or --config FILE for the real device")
    names = checks or tuple(conformance.CHECKS)
    if wrong := set(names) - set(conformance.CHECKS):
        raise click.UsageError(f"no check {', '.join(sorted(wrong))}; there are {', '.join(conformance.CHECKS)}")
    found = []
    with progress_bar(len(names), "checking", quiet=as_json) as advance:
        for verdict in conformance.conform(name, rig=rig, config_file=str(config_file or ""), checks=names):
            found.append(verdict)
            advance()
    failed = [v for v in found if v.result == "failed"]
    if as_json:
        emit({"driver": name, "peer": rig or str(config_file), "met": not failed, "checks": msgspec.to_builtins(found)})
    else:
        table = Table("", "the driver must", "seen", box=None, header_style="bold")
        words = {"passed": Text("met", "green"), "failed": Text("NOT MET", "bold red"), "not asked": Text("-", "dim")}
        for v in found:
            table.add_row(words[v.result], Text(f"{v.check}\n{v.demands}"), Text(v.text))
        new_console().print(table)
        click.echo(f"{name}: {len(failed)} of {len(found)} checks not met" if failed else f"{name}: conforms")
    if failed:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@drivers.command("play")
@click.argument("capture", type=click.Path(path_type=Path))
@click.argument("to")
@click.option("--speed", default=1.0, show_default=True, type=click.FloatRange(0, 1e6), help="0: without waiting.")
def play_capture(capture: Path, to: str, speed: float) -> None:
    """Play CAPTURE as the device that it is of, for a driver that looks for the device at TO.

    \b
    scanlane drivers play portal.capture 127.0.0.1:1601       a byte channel: listens there
    scanlane drivers play detector.capture tcp://127.0.0.1:31001
    scanlane drivers play folder.capture /srv/scans/north     files: puts them there
    scanlane drivers play store.capture 127.0.0.1:11112       objects: sends them there

    A device of a lane is captured where its table has `capture = "FOLDER"`. A capture holds all that the device sent,
    numbers and names of people included.
    """  # noqa: D301  (click wants the character itself)
    from scanner_io import capture as captures

    count = captures.play(capture, to, speed=speed, ready=lambda place: click.echo(f"playing at {place}"))
    click.echo(f"{count} played")


@drivers.command("new")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make. Default: scanlane-NAME here.")
def new(name: str, out: Path | None) -> None:
    """Write a driver NAME to begin with: one commented file, its fake peer, its test, and what installs it.

    It speaks a small text protocol over TCP and passes every check as it is. Replace the protocol step by step:

    \b
    scanlane drivers new acme && pip install -e scanlane-acme
    cd scanlane-acme && scanlane drivers conform acme --rig acme_rig.py:AcmeRig
    """  # noqa: D301  (click wants the character itself)
    from scanner_io import skeleton

    folder = out or Path(f"scanlane-{name}")
    for path in skeleton.write(name, folder):
        click.echo(f"{path} written")
    rig = f"{folder / name}_rig.py:{skeleton.class_of(name)}Rig"
    click.echo(f"next: pip install -e {folder} && scanlane drivers conform {name} --rig {rig}")
