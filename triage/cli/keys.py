"""`scanlane keys`: who may connect to a service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from scanner_io import security
from scanner_io.errors import ConfigError

from .shared import json_option

folder_argument = click.argument("folder", type=click.Path(path_type=Path))
role_option = click.option(
    "--role", required=True, type=click.Choice(security.ROLES),
    help="analyst takes scans and decides; supervisor also takes what is held; viewer sees the queue, no image; hub "
    "takes scans for the analysts of a site (`scanlane hub`).",
)  # fmt: skip


@click.group()
def keys() -> None:
    """Who may connect: make keys, enrol, revoke, list.

    \b
    Beside the service      scanlane keys init keys
                            dispatch.keys = "keys" in its TOML file
    At a workstation        scanlane keys new ana --service service.pub --out ana.key
    Beside the service      scanlane keys enrol keys --public ana.key.pub --role analyst
    At the workstation      scanlane watch --connect tcp://lane:7410 --key ana.key

    A secret key never leaves the machine it was made on. Carry the .pub files by a way on which nobody can exchange
    them, or compare the keys that `list` and `new` print.
    """  # noqa: D301  (click wants the character itself)


@keys.command()
@folder_argument
def init(folder: Path) -> None:
    """Make the keys of a service in FOLDER, and an empty list of the enrolled."""
    identity = security.create_service(folder)
    click.echo(f"{folder / security.SERVICE_KEY}: the service's secret; it stays here, readable by its user alone")
    click.echo(f"{folder / security.SERVICE_PUBLIC}: to be carried to the workstations; CURVE key {identity.curve}")
    click.echo(f"{folder / security.ENROLLED}: nobody is enrolled yet")


@keys.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The secret key file to write.")
@click.option("--service", type=click.Path(path_type=Path), required=True, help="service.pub of the service.")
def new(name: str, out: Path, service: Path) -> None:
    """Make the keys of NAME on the machine where they will be used: FILE and FILE.pub."""
    identity = security.generate(name, security.load_public(service).curve)
    _save(out, identity)
    click.echo(f"{out}: the secret of {name}; it stays on this machine")
    click.echo(f"{_public_of(out)}: to be enrolled beside the service; CURVE key {identity.curve}")


@keys.command()
@folder_argument
@role_option
@click.option("--public", type=click.Path(path_type=Path), help="A .pub file that was made at the workstation.")
@click.option("--name", help="Make the keys here instead, for somebody of this name; needs --out.")
@click.option("--out", type=click.Path(path_type=Path), help="The secret key file to write, to be carried over.")
def enrol(folder: Path, role: security.Role, public: Path | None, name: str | None, out: Path | None) -> None:
    """Let somebody connect from now on; a running service lets them in within a second."""
    if (public is None) == (name is None) or (name is None) != (out is None):
        raise click.UsageError("give --public FILE, or --name NAME together with --out FILE")
    if public is not None:
        key = security.load_public(public)
    else:
        service = security.load_public(folder / security.SERVICE_PUBLIC)
        assert name is not None and out is not None
        identity = security.generate(name, service.curve)
        _save(out, identity)
        key = identity.public
    try:
        security.enrol(folder, key, role)
    except ConfigError:
        if out is not None:  # a secret that nobody is let in with helps nobody
            out.unlink()
            _public_of(out).unlink()
        raise
    click.echo(f"{key.name} is enrolled as {role}; CURVE key {key.curve}")


@keys.command()
@folder_argument
@click.argument("name")
def revoke(folder: Path, name: str) -> None:
    """End somebody's right to connect; a running service cuts them off within a second."""
    was = security.revoke(folder, name)
    click.echo(f"{name} is revoked ({was.role}, enrolled {_when(was.enrolled_utc_ns)})")


@keys.command("list")
@folder_argument
@json_option
def list_(folder: Path, as_json: bool) -> None:
    """Show who is enrolled and who was."""
    listed = security.load_enrolled(folder / security.ENROLLED).enrolled
    for e in listed:
        state = f"revoked {_when(e.revoked_utc_ns)}" if e.revoked_utc_ns else "enrolled"
        if as_json:
            row = {
                "name": e.key.name, "role": e.role, "state": "revoked" if e.revoked_utc_ns else "enrolled",
                "enrolled": _when(e.enrolled_utc_ns), "curve": e.key.curve, "signing": e.key.signing,
                "revoked": _when(e.revoked_utc_ns) if e.revoked_utc_ns else None,
            }  # fmt: skip
            click.echo(json.dumps(row))
        else:
            click.echo(f"{e.key.name:20} {e.role:10} {state:10} since {_when(e.enrolled_utc_ns)}  {e.key.curve}")
    if not listed and not as_json:
        click.echo("nobody is enrolled")


def _public_of(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def _save(path: Path, identity: security.Identity) -> None:
    security.save_identity(path, identity)
    try:
        security.save_public(_public_of(path), identity.public)
    except BaseException:
        path.unlink()
        raise


def _when(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
