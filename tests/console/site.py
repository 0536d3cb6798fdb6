"""A service with recordings of simulated vehicles, and a console before it, for tests that look at the page.

`python tests/console/site.py FOLDER [PORT]` serves the same to a person.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import zmq

from scanner_io import recording
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.model import Box, Finding, Radiograph
from tests import samples
from triage.console.serve import new_server
from triage.console.station import Station
from triage.console.web import Lock
from triage.service.dispatch import Dispatch
from triage.service.outbox import Outbox, ScanRow

ROOT = Path(__file__).resolve().parents[2]
VEHICLES = 2
SETTINGS = {
    "columns": 700, "channels": 320, "threat_share": 0.6, "source_share": 0.3, "neutron_share": 0.1, "live": True,
    "misdeclared_share": 0.3,
}  # fmt: skip


def make_recordings(folder, judge, vehicles=VEHICLES, seed=11, **settings):
    """Write judged recordings of simulated vehicles of two lanes below `folder`."""
    from triage.service.simulated import simulate_recordings

    for number, lane in enumerate(("north", "south")):
        share = vehicles // 2 + (number == 0 and vehicles % 2)
        for _ in simulate_recordings(folder, share, seed + number, lane, judge, **{**SETTINGS, **settings}):
            pass


@contextmanager
def warm_judge():
    """Give a lane's judge, closed afterwards."""
    from triage.service.lane import Judge, lane_profile

    judge = Judge(lane_profile(None, None))
    try:
        judge.warm_up()
        yield judge
    finally:
        judge.close()


def drawn_scan(number, outcome="REVIEW", columns=640, channels=300, **changes):
    """Return a scan whose every pixel is known, with its result: steps of transmission, and a dark box at a finding.

    Transmission of column x is 1 - 0.9 * (x // 64) / 10, in the box 0.05; dark is 100 counts, air 8100.
    """
    steps = 1 - 0.9 * (np.arange(columns) // 64) / 10
    image = np.repeat(steps[:, None], channels, axis=1)
    image[300:360, 100:150] = 0.05
    counts = np.round(100 + 8000 * image).astype(np.uint16)
    detector = samples.detector(
        channels, dark=(np.full(channels, 100, np.float32),) * 2, air=(np.full(channels, 8100, np.float32),) * 2,
        bad_channels=np.zeros(channels, np.bool_), air_channels=None, flags=(),
    )  # fmt: skip
    begun_ns = time.time_ns() - 90_000_000_000 + number * 1_000_000_000
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(begun_ns / 1e9))
    scan_id = f"west-{stamp}.{begun_ns // 1000 % 1_000_000:06d}Z-{number:08x}"
    times = begun_ns + np.arange(columns, dtype=np.int64) * 5_000_000
    shift = begun_ns + 500_000_000 - samples.START_NS
    told = samples.portal(20, alarm=outcome == "ALARM")
    portal = msgspec.structs.replace(
        told, start_utc_ns=told.start_utc_ns + shift, end_utc_ns=told.end_utc_ns + shift,
        gamma_start_utc_ns=told.gamma_start_utc_ns + shift, gamma_arrival_ns=told.gamma_arrival_ns + shift,
    )  # fmt: skip
    scan = samples.scan(
        scan_id=scan_id, lane="west", start_utc_ns=begun_ns, end_utc_ns=begun_ns + 4_000_000_000, portal=portal,
        radiograph=Radiograph(detector=detector, counts=(counts, counts), column_utc_ns=times), **changes,
    )  # fmt: skip
    where = Box(first_column=300, end_column=360, first_channel=100, end_channel=150)
    found = (
        Finding(
            kind="dense_object", score=3.0, reason="half of the light less than around it", tier="review", where=where
        ),
        Finding(kind="opaque", score=0.1, reason="10 % could not be seen", tier="note"),
    )
    return scan, samples.result(scan_id, outcome, findings=found, gamma_alarm=outcome == "ALARM")


def draw_recordings(folder, outcomes=("REVIEW", "REVIEW", "ALARM", "REVIEW"), **options):
    """Write recordings of drawn scans below `folder`."""
    for number, outcome in enumerate(outcomes):
        scan, result = drawn_scan(number, outcome, **options)
        recording.write(folder / f"{scan.scan_id}.scan.h5", scan, config={}, result=result)


def row_of(path):
    """Return the row of a recording as a lane reports it."""
    import hashlib

    found = recording.read(path)
    data = path.read_bytes()
    return ScanRow(
        scan_id=found.scan.scan_id, lane=found.scan.lane, path=str(path), sha256=hashlib.sha256(data).hexdigest(),
        size=len(data), start_utc_ns=found.scan.start_utc_ns, simulated=found.scan.simulated, result=found.result,
        declaration=found.scan.declaration,
    )  # fmt: skip


def until(condition, timeout_s=10.0):
    """Return what `condition` returns once that is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come to be in time")


def opened(station, number=0):
    """Open a scan of the queue at a workstation."""
    scan_id = station.queue()["rows"][number]["scan_id"]
    scan = station.open(scan_id)
    assert scan.done.wait(20)
    assert scan.state == "ready", scan.error
    return scan


class Site:
    """A service in a thread of its own, as the daemon's loop runs it."""

    def __init__(self, folder, rows, *, port=0, lease_s=10.0, heartbeat_s=1.0):
        self._folder = folder
        self._port = port
        self._config = {"lease_s": lease_s, "heartbeat_s": heartbeat_s, "max_attempts": 50}
        self._work = []
        self.start()
        for row in rows:
            self.do(lambda outbox, dispatch, row=row: outbox.add(row))

    def start(self):
        self._ending = threading.Event()
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(up,))
        self._thread.start()
        assert up.wait(10)

    def stop(self):
        """End it as a crash would be seen; its outbox stays."""
        self._ending.set()
        self._thread.join(10)

    def _run(self, up):
        outbox = Outbox(self._folder / "outbox.sqlite")
        context = zmq.Context()
        config = DispatchConfig(bind=f"tcp://127.0.0.1:{self._port}", **self._config)
        dispatch = Dispatch(context, config, outbox, lambda event, **fields: None)
        self.address = dispatch.address
        self._port = int(self.address.rpartition(":")[2])
        up.set()
        while not self._ending.is_set():
            work, self._work = self._work, []
            for call, done in work:
                done.append(call(outbox, dispatch))
            if dispatch.socket.poll(10):
                dispatch.serve()
            dispatch.tick()
        dispatch.close()
        context.term()
        outbox.close()

    def do(self, call):
        """Run `call(outbox, dispatch)` in the service's thread and return what it returns."""
        done = []
        self._work = [*self._work, (call, done)]
        deadline = time.monotonic() + 5
        while not done and time.monotonic() < deadline:
            time.sleep(0.005)
        return done[0]

    def state(self, scan_id):
        return self.do(lambda outbox, dispatch: outbox.item(scan_id).state)

    def decisions(self, scan_id):
        return self.do(lambda outbox, dispatch: outbox.decisions(scan_id))

    def steal(self, scan_id, thief):
        """Give a scan to somebody else, as after a lease that ran out."""

        def take(outbox, dispatch):
            dispatch._end_lease(outbox.item(scan_id).lease_id, "the lease ran out")
            outbox.lease(scan_id, thief, 60.0)

        self.do(take)


class Console:
    """`scanlane console` in a process of its own."""

    def __init__(self, addresses, state, *, analyst="ana", options=()):
        command = [sys.executable, "-m", "triage.cli", "console", "--port", "0", "--json", "--analyst", analyst]
        for address in addresses:
            command += ["--connect", address]
        self.process = subprocess.Popen(
            [*command, "--state", str(state), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()[-2000:]
        self.url = json.loads(line)["url"]

    def stop(self):
        """End it as a person does; return the exit code and what it wrote to stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


class ConsoleHere:
    """The same page by a thread of this process, at once; for one test, as its connections are this process's own."""

    def __init__(self, addresses, state, *, analyst="ana", hold_s=0.2):
        state.mkdir(exist_ok=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        lock = Lock(self._listening.getsockname()[1])
        self.station = Station(tuple(addresses), analyst, state, hold_s=hold_s)
        self._server = new_server(self.station, lock)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.url = lock.new_address()

    def _run(self):
        asyncio.run(self._server.serve(sockets=[self._listening]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.station.events.close()
        self._server.should_exit = True
        self._thread.join(20)
        self.station.close()
        self._listening.close()


if __name__ == "__main__":
    given = Path(sys.argv[1])
    if not (given / "recordings").exists():
        with warm_judge() as made:
            make_recordings(given / "recordings", made)
    (given / "outbox.sqlite").unlink(missing_ok=True)
    found = [row_of(path) for path in sorted((given / "recordings").rglob("*.scan.h5"))]
    running = Site(given, found, port=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(running.address, [(row.scan_id, row.result.outcome) for row in found], flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        running.stop()
