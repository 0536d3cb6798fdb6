"""`scanlane release`: what it is made of, and whether a wheel is the one that was released."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scanner_io import security
from scanner_io.storage import write_durable

from .shared import EXIT_BAD_INPUT, emit, json_option

out_option = click.option("--out", type=click.Path(path_type=Path), help="Write it to this file. Default: print it.")
wheel_argument = click.argument("wheel", type=click.Path(path_type=Path))


@click.group()
def release() -> None:
    """List of parts, lock, signatures of wheels; all of it works without a network.

    \b
    Who releases      scanlane release sign scanlane-0.1.0-py3-none-any.whl --key release.key
    At a site         scanlane release verify scanlane-0.1.0-py3-none-any.whl --public release.key.pub
    What is installed scanlane release sbom --check
    """  # noqa: D301  (click wants the character itself)


@release.command()
@out_option
@click.option("--check", is_flag=True, help="Compare with the lock instead; exit code 1 if anything differs.")
@json_option
def sbom(out: Path | None, check: bool, as_json: bool) -> None:
    """List the parts of this installation as CycloneDX JSON, from what each of them says of itself."""
    from triage.operate import parts

    found = parts.installed()
    if not check:
        text = json.dumps(parts.sbom(found), indent=1)
        if out is None:
            click.echo(text)
        else:
            write_durable(out, text.encode() + b"\n", replace=True, mode=0o644)
        return
    differs = parts.difference(found, parts.locked())
    if as_json:
        emit(differs._asdict())
    else:
        for what, names in differs._asdict().items():
            for name in names:
                click.echo(f"{what.replace('_', ' ')}: {name}")
        click.echo(f"{sum(map(len, differs))} differences from the lock among {len(found) - 1} parts")
    if any(differs):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@release.command()
@click.argument("report", type=click.Path(path_type=Path))
@out_option
def lock(report: Path, out: Path | None) -> None:
    """Write the lock for what pip resolved: REPORT of `pip install --dry-run --ignore-installed --report`."""
    from triage.operate import parts

    text = parts.lock_of(report)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_durable(out, text.encode(), replace=True, mode=0o644)


@release.command()
@wheel_argument
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Key file of who releases.")
def sign(wheel: Path, key: Path) -> None:
    """Sign WHEEL; the signature is written beside it as WHEEL.sig."""
    from triage.operate import release as work

    click.echo(f"{work.sign(wheel, security.load_identity(key))}: written")


@release.command()
@wheel_argument
@click.option("--public", required=True, type=click.Path(path_type=Path), help="Public key of who releases.")
@json_option
def verify(wheel: Path, public: Path, as_json: bool) -> None:
    """Tell whether WHEEL is the file that was signed by this key; exit code 1 if it is not."""
    from triage.operate import release as work

    signed = work.verify(wheel, security.load_public(public))
    if as_json:
        emit({"wheel": signed.name, "sha256": signed.sha256, "signer": signed.signer})
    else:
        click.echo(f"{wheel}: signed by {signed.signer}, SHA-256 {signed.sha256}")
