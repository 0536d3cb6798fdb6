"""`scanlane check`: every problem of a configuration and of its devices, without starting anything."""

from __future__ import annotations

import datetime
import socket
import tempfile
from pathlib import Path

import zmq

from scanner_io import config as configuration
from scanner_io import disk, wire
from scanner_io import driver as drivers
from scanner_io.client import Workstation
from scanner_io.errors import ConfigError, ScannerError, StorageError
from scanner_io.foreign import ForeignFiles
from triage.analysis.risk import expired

from .from_lanes import identity
from .lane import expected_kinds, lane_profile
from .live_selection import rules_of
from .room import Marks
from .store import opened, place_of


def check_config(path: Path, timeout_s: float) -> tuple[list[str], list[str]]:
    """Return (problems, notes) of the configuration at `path`; each device is opened, and a live one read once."""
    try:
        config = configuration.load(path)
    except ConfigError as error:
        return error.problems, []
    problems: list[str] = []
    notes: list[str] = []
    _check_state_dir(config, problems, notes)
    _check_bind(config, problems, notes)
    if config.metrics.bind is not None:
        told = page_problem(config.metrics.bind)
        (problems if told else notes).append(f"metrics.bind {config.metrics.bind}: {told or 'free'}")
    _check_outbox(config, problems, notes)
    _check_sandbox(config, problems, notes)
    check_selection(config, problems, notes)
    if config.hub is not None:
        _check_ways(config.hub, timeout_s, problems, notes)
    for lane in config.lane:
        notes.append(f"lane {lane.name}: expects {', '.join(lane.expected or expected_kinds(lane))}")
        check_energy(lane, problems, notes)
        check_profile(lane, problems, notes)
        check_risk(lane, problems, notes)
        for number, device in enumerate(lane.device):
            _check_device(f"lane {lane.name} device[{number}] ({device.driver})", device, timeout_s, problems, notes)
    return problems, notes


def _check_ways(hub: configuration.Hub, timeout_s: float, problems: list[str], notes: list[str]) -> None:
    """Say hello to every lane of a hub, taking nothing."""
    for lane in hub.lane:
        here = f"hub.lane {lane.name} ({lane.address})"
        try:
            keys = identity(hub, lane)
            with Workstation(lane.address, hub.name, capacity=0, identity=keys, hub=True) as desk:
                answers = desk.connected(timeout_s)
                too_old = answers and desk.minor < wire.MINOR_HUB
        except ScannerError as error:
            problems.append(f"{here}: {error}")
            continue
        if not answers:
            problems.append(f"{here}: no answer in {timeout_s:g} s; does it run, and is the hub enrolled there?")
        elif too_old:
            problems.append(f"{here}: speaks minor {desk.minor}, {wire.MINOR_HUB} is needed for a hub; upgrade it")
        else:
            notes.append(f"{here}: answers")


def _check_state_dir(config: configuration.Config, problems: list[str], notes: list[str]) -> None:
    folder = Path(config.state_dir)
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        problems.append(f"state_dir {folder}: cannot be written ({error.strerror}); mend its rights or choose another")
        return
    space = disk.io().space(existing)
    marks = Marks.of(config.storage, space.total)
    free_mb, stop_mb, warn_mb = (n >> 20 for n in (space.free, marks.stop, marks.warn))
    if space.free < marks.stop:
        problems.append(
            f"state_dir {folder}: {free_mb} MiB free, intake would stop at once: it stops below {stop_mb} MiB; free "
            "space or lower storage.min_free_mb"
        )
    notes.append(f"state_dir {folder}: writable, {free_mb} MiB free; warns below {warn_mb} MiB, stops below {stop_mb}")


def page_problem(bind: str) -> str:
    """Return in words why the page of metrics could not be served at HOST:PORT, empty if it could."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, int(port)), family=family).close()
    except OSError as error:
        return f"{error}; another program has it, or this machine has no such address"
    return ""


def _check_bind(config: configuration.Config, problems: list[str], notes: list[str]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.ROUTER)
    try:
        sock.bind(config.dispatch.bind)
        notes.append(f"dispatch.bind {config.dispatch.bind}: free")
    except zmq.ZMQError as error:
        problems.append(f"dispatch.bind {config.dispatch.bind}: {error}; is a daemon running already?")
    finally:
        sock.close(linger=0)
        context.term()


def _check_outbox(config: configuration.Config, problems: list[str], notes: list[str]) -> None:
    """Connect to the server that has the outbox; a file in the state folder needs no trying."""
    place = place_of(config)
    if isinstance(place, Path):
        return
    try:
        opened(place).close()
    except StorageError as error:
        problems.append(f"outbox.url {error}")
    else:
        notes.append(f"outbox.url {place}: keeps what it has acknowledged, hub {place.hub!r} is free")


def _check_sandbox(config: configuration.Config, problems: list[str], notes: list[str]) -> None:
    """Try out what holds readers of foreign files on this system, if a device reads such files."""
    asked = {getattr(device.config, "sandbox", None) for lane in config.lane for device in lane.device}
    if not asked & {"auto", "require"}:
        return
    try:
        with ForeignFiles() as readers:
            held = readers.confinement()
    except ScannerError as error:
        problems.append(str(error))
        return
    if held.whole:
        notes.append(f"sandbox for foreign files: {held}")
    elif "require" in asked:
        problems.append(f"sandbox for foreign files: required, but this system gives only: {held}")
    else:
        notes.append(f'sandbox for foreign files: DEGRADED: {held}; sandbox = "require" refuses to read so')


def check_energy(lane: configuration.Lane, problems: list[str], notes: list[str]) -> None:
    """Fit a lane's energy calibration as the lane will; a lane must not begin with one that cannot be believed."""
    if lane.energy_calibration is None:
        return
    from scanner_io import energy_calibration
    from triage.analysis.transparency import fit_zones

    try:
        models = fit_zones(energy_calibration.load(Path(lane.energy_calibration)))
    except ConfigError as error:
        problems += [f"lane {lane.name}: {p}" for p in error.problems]
    except ScannerError as error:
        problems.append(f"lane {lane.name}: {lane.energy_calibration}: {error}")
    else:
        worst = max(b.model_error for m in models for b in (m.low, m.high))
        notes.append(
            f"lane {lane.name}: energy calibration of {len(models)} zones fits, error of the model {worst:.1%}"
        )


def check_profile(lane: configuration.Lane, problems: list[str], notes: list[str]) -> None:
    """Read a lane's profile as the lane will; it must be of this lane, these thresholds and this software."""
    if lane.profile is None:
        return
    try:
        learned = lane_profile(lane.energy_calibration, lane.profile, lane.name).lane
    except ConfigError as error:
        problems += [f"lane {lane.name}: {p}" for p in error.problems]
    else:
        notes.append(
            f"lane {lane.name}: profile of {learned.scans} {'SIMULATED ' if learned.simulated else ''}scans in "
            f"{len(learned.strata)} strata promises at most {learned.flag_rate:.2%} flags"
        )


def check_risk(lane: configuration.Lane, problems: list[str], notes: list[str]) -> None:
    """Read a lane's risk profile as the lane will: two people must have signed it, and no rule contradict another."""
    if lane.risk is None:
        return
    try:
        rules = lane_profile(None, None, lane.name, lane.risk).risk
    except ConfigError as error:
        problems += [f"lane {lane.name}: {p}" for p in error.problems]
    else:
        gone = [r.id for r in expired(rules, datetime.datetime.now(datetime.UTC).date())]
        told = f"; expired: {', '.join(gone)}" if gone else ""
        notes.append(f"lane {lane.name}: risk profile {rules.identity} of {len(rules.rules)} rules{told}")


def check_selection(config: configuration.Config, problems: list[str], notes: list[str]) -> None:
    """Read what passages are selected by, as the service will."""
    if config.selection is None:
        return
    try:
        rules = rules_of(config.selection)
    except ConfigError as error:
        problems += error.problems
    else:
        notes.append(f"selection {rules.words}")


def _check_device(
    where: str, device: configuration.Device, timeout_s: float, problems: list[str], notes: list[str]
) -> None:
    try:
        source = drivers.connect(device.driver, device.config)
    except ConfigError as error:
        problems += [f"{where}: {p}" for p in error.problems]
        return
    try:
        info = source.open()
        if source.pausable:
            heard = "not read: a file that is read may be moved"
        else:
            event = source.read(timeout_s)
            heard = "silent so far" if event is None else f"first word {type(event).__name__}"
        notes.append(f"{where}: {info.vendor} {info.model} {info.address}, {heard}")
    except (ScannerError, OSError) as error:
        problems.append(f"{where}: {error}")
    finally:
        source.close()
