"""`scanlane install`, `uninstall` and `doctor`: the service on its host."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from scanner_io.errors import ConfigError

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console

root_option = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path("/"), show_default=True,
    help="Write below this folder instead, to look at it or for an image of a machine.",
)  # fmt: skip


@click.command()
@click.option("--user", default="scanlane", show_default=True, help="Who runs the service; made by systemd-sysusers.")
@click.option("--memory", default="66%", show_default=True, help="Limit of its memory: a share, or such as 6G.")
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="Of devices and workstations: all else is "
              "denied. May be given again. Default: this machine and the private networks.")  # fmt: skip
@root_option
@click.option("--print", "only_print", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--exposure", is_flag=True, help="Print what systemd finds open in the unit, and why it is.")
@click.option("--monitoring", type=click.Path(path_type=Path, file_okay=False), help="Write a dashboard for Grafana "
              "and alert rules for Prometheus into this folder, and nothing else.")  # fmt: skip
@json_option
def install(
    user: str,
    memory: str,
    networks: tuple[str, ...],
    root: Path,
    only_print: bool,
    exposure: bool,
    monitoring: Path | None,
    as_json: bool,
) -> None:
    """Write a hardened systemd unit, its user's entry and a commented configuration.

    A file that somebody has changed is never overwritten: the new one is put beside it. Nothing is started; the
    commands for that are printed.
    """
    from triage.operate import install as work

    files = work.files(user, memory=memory, networks=networks or work.PRIVATE)
    if monitoring is not None:
        written = work.write_monitoring(monitoring)
        click.echo("\n".join(map(str, written)) if not as_json else json.dumps([str(p) for p in written]))
        return
    if exposure:
        table = work.exposure()
        if as_json:
            emit(table)
        else:
            for name, why in table.items():
                click.echo(f"{name}\n    {why}")
        return
    if only_print:
        if as_json:
            emit({str(f.path): f.content for f in files})
        else:
            click.echo("\n".join(f"==> {f.path}\n{f.content}" for f in files))
        return
    problem = work.hidden()
    if problem and root == Path("/"):
        raise ConfigError([problem])
    changes = work.install(files, root)
    if as_json:
        emit({"files": {str(p): c for p, c in changes}, "problem": problem, "next": work.next_steps(user)})
        return
    for path, change in changes:
        click.echo(f"{path}: {change}")
    if problem:
        click.echo(f"warning: {problem}", err=True)
    click.echo("\n".join(("Now, as root:", *work.next_steps(user))))


@click.command()
@root_option
@json_option
def uninstall(root: Path, as_json: bool) -> None:
    """Remove what `install` wrote. Recordings, outbox, keys and every file that was changed by hand stay."""
    from triage.operate import install as work

    changes = work.uninstall(root)
    if as_json:
        emit({"files": {str(p): c for p, c in changes}, "kept": "/var/lib/scanlane"})
        return
    for path, change in changes:
        click.echo(f"{path}: {change}")
    if not changes:
        click.echo(f"nothing is noted in {work.below(root, work.NOTED)}: nothing was removed")
    click.echo("kept: /var/lib/scanlane and all keys; before this, `systemctl disable --now scanlane` ends the service")


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default=Path("/etc/scanlane/lane.toml"))
@root_option
@json_option
def doctor(config: Path, root: Path, as_json: bool) -> None:
    """Say in plain words what is wrong on this host for CONFIG, and what to do.

    Run it as the user that runs the service: what that one may not read or write is what counts. Exit code 1 if
    anything is a problem; warnings alone are 0.
    """
    from triage.operate.doctor import Host, examine

    findings = examine(Host(config=config.resolve(), root=root))
    problems = sum(f.state == "problem" for f in findings)
    if as_json:
        emit({"findings": msgspec.to_builtins(findings), "problems": problems})
    else:
        console = new_console()
        for f in findings:
            style = {"ok": "", "warning": "yellow", "problem": "bold red"}[f.state]
            console.print(f"{f.state:8} {f.check}: {f.text}", markup=False, style=style)
        console.print(f"{problems} problems" if problems else "no problem found")
    if problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
