"""`scanlane demo`: two simulated lanes, the real daemon in its own process, and a scripted analyst on the real wire.

The vehicles' declarations come in advance, as messages in a watched folder; cameras read the vehicles, with errors. A
service that selects lets some wait for the analyst whose picture is clear: by risk, as room allows, and at random.
"""

from __future__ import annotations

import json
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from scanner_io import driver as drivers
from scanner_io import energy_calibration, security, storage, wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError, ScannerError
from scanner_io.formats.cargo_edifact import write_interchange
from scanner_io.formats.cargo_json import write_json
from scanner_io.model import TriageResult, Verdict
from triage.analysis.risk import EXAMPLE
from triage.analysis.selection import EXAMPLE as PLAN
from triage.analysis.selection import SEED_BYTES

from . import risk_store
from . import staged as staging
from .desk import interrupts, scan_of
from .outbox import Outbox
from .staged import Staged

if TYPE_CHECKING:
    from rich.console import Console

    from scanner_io.model import Scan

LANES = ("north", "south")
START_WAIT_S = 120.0
QUIET_WAIT_S = 60.0
CONFIG = """\
state_dir = "state"

[storage]
min_free_mb = 64

[dispatch]
bind = "tcp://127.0.0.1:0"
lease_s = 30.0

[selection]
profile = "{risk}"
plan = "{plan}"
seed_file = "{seed_file}"
"""
LANE = """
[[lane]]
name = "{name}"
risk = "{risk}"
energy_calibration = "{energy}"

[[lane.device]]
driver = "simulated"
seed = {seed}
vehicles = {vehicles}
norm_share = {norm_share}
speed = {speed}
declarations = false
cameras = true
delay_s = {delay_s}
"""
FEED = """
[[lane.device]]
driver = "cargo_feed"
folder = "declarations"
stable_s = 0.1
poll_s = 0.1
simulated = true
"""
SPEED = 20.0
DELAY_S = 2.0
"""The declarations are there when the first vehicle comes; on a machine that is busier, some come late and are told."""


def scripted_verdict(result: TriageResult) -> Verdict:
    """Return what the demo's analyst answers: a stand-in for a person, and said to be one."""
    return {"ALARM": "inspect", "UNUSABLE": "rescan"}.get(result.outcome, "clear")  # type: ignore[return-value]


STAGED = {"north": ("weight", "empty"), "south": ("tiles",)}
NORM_SHARE = {"north": 0.05, "south": 0.4}


def write_config(folder: Path, vehicles: int, seed: int) -> tuple[Path, list[Staged]]:
    """Write the demo's configuration for `vehicles` on two lanes; return its path, and what is staged."""
    shares = [vehicles - vehicles // 2, vehicles // 2]
    risk, plan, seed_file = _risk_profile(folder), folder.resolve() / "plan.toml", folder.resolve() / "selection.seed"
    plan.write_text(PLAN)
    storage.write_durable(seed_file, secrets.token_bytes(SEED_BYTES).hex().encode() + b"\n", mode=0o600)
    text = CONFIG.format(risk=risk, plan=plan, seed_file=seed_file)
    module = drivers.load("simulated")
    energy = folder.resolve() / "simulated.energy.toml"
    energy.write_text(energy_calibration.to_toml(module.energy_calibration(module.Config())))
    staged: list[Staged] = []
    for number, (name, share) in enumerate(zip(LANES, shares, strict=True)):
        if share:
            told = {"seed": seed + number, "vehicles": share, "norm_share": NORM_SHARE[name]}
            told["seed"], here = staging.chosen(module, name, told, STAGED[name])
            text += LANE.format(name=name, speed=SPEED, delay_s=DELAY_S, risk=risk, energy=energy, **told)
            text += FEED.replace('"declarations"', f'"{folder.resolve() / "declarations"}"') if number == 0 else ""
            declare(folder / "declarations", name, module.Config(**told), here)
            staged += here
    path = folder / "demo.toml"
    path.write_text(text)
    return path, staged


def _risk_profile(folder: Path) -> Path:
    """Sign the example of a risk profile with two keys made for it, as two people would; return where it is kept."""
    file = folder / "risk.toml"
    file.write_text(EXAMPLE)
    for name in ("demo-risk-desk", "demo-supervisor"):
        signed = risk_store.sign(file, folder.resolve() / "profiles", security.generate(name))
    return folder.resolve() / "profiles" / f"{signed.sha256}.toml"


def declare(folder: Path, lane: str, config: Any, staged: Sequence[Staged]) -> None:
    """Write what is declared for a lane's vehicles: of one lane in JSON, of the other as UN/EDIFACT."""
    messages = [drivers.load("simulated").cargo_message(config, index) for index in range(config.vehicles)]
    for one in staged:
        messages[one.index] = staging.papers(messages[one.index], one.kind)
    folder.mkdir(exist_ok=True)
    if lane == LANES[0]:
        (folder / f"{lane}.json").write_bytes(write_json(messages))
    else:
        told = [msgspec.structs.replace(m, form="CUSCAR") for m in messages]
        (folder / f"{lane}.edi").write_bytes(write_interchange(told, time.time_ns(), f"SIM{config.seed}"))


class _Service:
    """The daemon as a child process, heard by its JSON log."""

    def __init__(self, config: Path) -> None:
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._errors = (config.parent / "daemon.stderr").open("w+")
        self._process = subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-m", "triage.cli", "run", str(config), "--json"],
            stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self.events.put(json.loads(line))
        self.events.put({"event": "service_ended"})

    def wait_for(self, event: str, timeout_s: float) -> dict[str, Any]:
        """Return the next event of that name; raise DeliveryError if the service ends or is late."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                said = self.events.get(timeout=left)
            except queue.Empty:
                break
            if said["event"] == event:
                return said
            if said["event"] == "service_ended":
                raise DeliveryError(f"the service ended before {event!r}: {self.errors()}")
        raise DeliveryError(f"the service did not say {event!r} within {timeout_s:.0f} s: {self.errors()}")

    def errors(self) -> str:
        """Return the end of what the service wrote to stderr."""
        self._errors.flush()
        self._errors.seek(0)
        return self._errors.read()[-2000:].strip() or "it said nothing"

    def stop(self) -> None:
        """End the service and wait for it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


def run_demo(
    vehicles: int, seed: int, keep: Path | None, *, console: Console | None, page: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Run the demo; return the summary.

    console : where a person watches; None is silent
    page : no analyst is played: the analyst's page is served, for the person to decide until Ctrl-C

    Raises DeliveryError if the service does not come up or loses its way.
    """
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="scanlane-demo-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "state").exists():
        raise ScannerError(f"{folder}: holds a demo's state already; choose an empty folder")
    try:
        config, staged = write_config(folder, vehicles, seed)
        if console is not None:
            console.print(
                f"{vehicles} simulated vehicles on two lanes, {SPEED:.0f} times faster than life; everything here is "
                "simulated. Compiling the kernels takes some seconds the first time …",
            )
            for one in staged:
                console.print(f"staged: {one.container} on lane {one.lane}: {staging.WORDS[one.kind]}", markup=False)
        service = _Service(config)
        try:
            address = service.wait_for("listening", START_WAIT_S)["address"]
            if page:
                _serve_page(service, address, folder, console)
            else:
                _attend(service, address, vehicles, console)
                if console is not None and console.is_terminal and sys.stdin.isatty():
                    _stay(console, address, folder)
        finally:
            service.stop()
        summary = _summary(folder / "state", vehicles, time.monotonic() - began_s)
        beside = staging.seen(folder / "state" / "outbox.sqlite", staged)
        if page:  # ended when the person liked: what waits then is not lost
            waiting = summary["flagged"] + summary["selected"] - summary["decided"]
            told = ("recorded", "selected", "decided")
            summary = {**{name: summary[name] for name in told}, "waiting": waiting}
        if console is not None:
            _print_summary(console, summary, keep)
            for row in beside:
                console.print(f"staged {row['container']}: {row['words']}\n    seen: {row['reason']}", markup=False)
        return {**summary, "staged": beside}
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _attend(service: _Service, address: str, vehicles: int, console: Console | None) -> None:
    """Answer offers until every vehicle is judged and no flagged one is undecided."""
    with Workstation(address, "demo-analyst", capacity=2) as desk:
        quiet_since_s = time.monotonic()
        finished = False
        while True:
            offer = desk.next_offer(timeout_s=0.2)
            progressed = _hear(service, console)
            if offer is not None:
                _answer(desk, offer, console)
            if offer is not None or progressed:
                quiet_since_s = time.monotonic()
            if not finished or offer is not None:
                finished = _everything_judged(desk, vehicles)
                if not finished and time.monotonic() - quiet_since_s < START_WAIT_S:
                    continue
            counts = desk.queue().counts
            if not counts.get("pending", 0) + counts.get("leased", 0):
                return
            if time.monotonic() - quiet_since_s > QUIET_WAIT_S:
                raise DeliveryError(f"nothing happened for {QUIET_WAIT_S:.0f} s; {counts}; {service.errors()}")


def _serve_page(service: _Service, address: str, folder: Path, console: Console | None) -> None:
    """Serve the analyst's page in a process of its own until it ends, as it does at Ctrl-C."""
    with interrupts():
        process = subprocess.Popen(  # noqa: S603 -- our own program
            [
                sys.executable, "-m", "triage.cli", "console", "--connect", address, "--port", "0", "--analyst",
                "demo-analyst", "--state", str(folder / "console"), "--open",
            ],
        )  # fmt: skip
        try:
            while process.poll() is None:
                _hear(service, console)
                time.sleep(0.2)
        except KeyboardInterrupt:  # the page's process hears it too
            pass
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=30)


def _stay(console: Console, address: str, folder: Path) -> None:
    """Offer to leave the service running for a look around."""
    console.print(
        f"The service still runs. In another terminal:  scanlane console --connect {address}\n"
        f"Recordings:  {folder / 'state' / 'recordings'}",
        markup=False,
    )
    console.input("Enter ends the demo > ")


def _everything_judged(desk: Workstation, vehicles: int) -> bool:
    return desk.connected() and desk.queue().counts.get("recorded", 0) >= vehicles


def _hear(service: _Service, console: Console | None) -> bool:
    """Pass on what the service says; True if it said something."""
    heard = False
    while not service.events.empty():
        said = service.events.get()
        heard = True
        if said["event"] == "service_ended":
            raise DeliveryError(f"the service ended early: {service.errors()}")
        if console is None:
            continue
        if said["event"] == "scan" and said["outcome"] == "CLEAR":
            console.print(f"{said['scan']}  CLEAR  load {said['load']}", style="dim", markup=False)
        elif said["event"] == "selected":
            console.print(f"{said['scan']}  selected for a look: {said['text']}", style="cyan", markup=False)
        elif said["level"] != "info":
            console.print(f"{said['event']}: {said.get('text', '')}", style="yellow", markup=False)
    return heard


def _answer(desk: Workstation, offer: wire.Offer, console: Console | None) -> None:
    scan: Scan = scan_of(desk.fetch(offer))
    verdict = scripted_verdict(offer.result)
    if console is not None:
        from triage.terminal import scan_panel

        panel = scan_panel(
            offer.result, scan=scan, simulated=offer.simulated, width=console.width,
            colour=console.color_system is not None, declaration=offer.declaration,
        )  # fmt: skip
        console.print(panel)
    decided = desk.decide(offer, verdict, note="scripted answer of the demo")
    if console is not None:
        word = "committed" if decided.applied else f"not applied: {decided.reason}"
        console.print(f"    demo analyst: {verdict}, {word}", style="bold", markup=False)


def _summary(state: Path, vehicles: int, seconds: float) -> dict[str, Any]:
    outbox = Outbox(state / "outbox.sqlite")
    try:
        counts = outbox.counts()
        ((selected,),) = outbox.store.rows(
            "SELECT COUNT(*) FROM outbox JOIN scans USING (scan_id) WHERE selected=1 AND outcome='CLEAR'"
        )
    finally:
        outbox.close()
    recorded = counts["recorded"]
    return {
        "vehicles": vehicles,
        "recorded": recorded,
        "judged": sum(counts.get(o, 0) for o in ("CLEAR", "REVIEW", "ALARM", "UNUSABLE")),
        "flagged": recorded - counts.get("CLEAR", 0),
        "selected": selected,
        "offered": counts["offered"],
        "decided": counts.get("decided", 0),
        "lost": vehicles - recorded + counts.get("held", 0) + counts.get("pending", 0) + counts.get("leased", 0),
        "seconds": round(seconds, 1),
    }


def _print_summary(console: Console, summary: dict[str, Any], keep: Path | None) -> None:
    from rich.table import Table

    table = Table(title="every vehicle accounted for" if not summary.get("lost") else "VEHICLES ARE MISSING", box=None)
    for name in summary:
        table.add_column(name, justify="right")
    table.add_row(*(str(v) for v in summary.values()))
    console.print(table)
    if keep is not None:
        console.print(f"recordings and outbox are kept in {keep}", markup=False)
