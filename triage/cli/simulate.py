"""`scanlane simulate`: recordings and portals of vehicles that never were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared import emit, json_option, new_console, new_judge, progress_bar


@click.group(invoke_without_command=True)
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
    judge = new_judge()
    try:
        with progress_bar(vehicles, "simulating", quiet=as_json) as advance:
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
                    emit({"file": str(path), "outcome": result.outcome, "load": result.load})
                advance()
    finally:
        judge.close()
    if not as_json:
        new_console().print(f"{vehicles} recordings in {out}", markup=False)


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
    play_portal(emit=emit, **told)
