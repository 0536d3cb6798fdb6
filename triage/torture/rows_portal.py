"""R11: a portal whose line is pulled, torn, flooded and silent, over TCP and a serial line at once.

Counts are simulated. Both lanes hear the same bytes at the same time. A passage of which nothing was lost must be in
its recording count for count; of every other its recording must say what is missing, and none of them reads as clear.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scanner_io import recording
from scanner_io.formats.portal_daily import format_line
from scanner_io.model import PortalRecord, TriageResult

from . import bed, oracle
from .outcome import Outcome, judged, say
from .peer import Peer, SerialPeer

LANES = ("tcp", "serial")
LANE = """
[[lane]]
name = "{name}"
join_window_s = 0
join_wait_s = 0

[[lane.device]]
driver = "rpm_rapiscan"
address = "{address}"
silence_s = 6.0
occupancy_timeout_s = 1.5
simulated = true
"""
BURST, LIVE = 6, 8
"""Gamma lines that a portal sends at once at entry, and then every 0.2 s."""
STEP_S = 0.2
UNPLUGGED_S = 1.0
MB_LINE = b"GS," + b"0" * (1 << 20) + b"\r\n"
TRICKLE_BYTES_PER_S = 200
"""What an occupied portal says: six or seven lines of 30 bytes in a second."""
WATCHED_S = (3.0, 60.0)

Step = tuple[float, bytes]


class Fault(NamedTuple):
    """What is done to the lines of a passage, and what its recording or the log must say; "" where nothing is lost."""

    do: Callable[[Rig, list[Step]], None]
    told: str


def r11_bad_lines(folder: Path, full: bool) -> Outcome:
    """Let a portal's line go wrong in every way; then measure what a trickle and garbage cost."""
    serial = SerialPeer(folder / "ttyPortal")
    try:
        with Peer() as peer:
            rig = Rig(folder, peer, serial)
            with rig.service:
                bed.ready(rig.service, len(LANES))
                peer.wait()
                bed.wait_until(lambda: len(rig.opened("serial")) == 1, 20.0, "the serial line is opened")
                rounds = 20 if full else 1
                found = [(n, rig.meet(n, f)) for _ in range(rounds) for n, f in FAULTS.items()]
                cpu = rig.cpu(WATCHED_S[full])
                died = len(rig.service.named("lane_died"))
                rig.service.stop()
    finally:
        serial.cut()
    each = [lane for _, lanes in found for lane in lanes]
    figure = {
        "faults": len(each), "told_right": sum(e["right"] for e in each),
        "read_as_clear": sum(e["clear"] for e in each if e["lossy"]),
        "not_right": sorted({f"{n} ({e['lane']})" for n, lanes in found for e in lanes if not e["right"]}),
        "reconnects": len(rig.reconnect_s), "reconnect_s_max": round(max(rig.reconnect_s), 2),
        "rss_grown_mb_of_1_mb_line": round(rig.grown_mb, 1), "cpu_share_max": round(max(cpu.values()), 4),
        "cpu_share": {k: round(v, 4) for k, v in cpu.items()}, "lanes_died": died,
    }  # fmt: skip
    bar = {
        "told_right": f"== {len(each)}", "read_as_clear": "== 0", "reconnects": f">= {2 * len(LANES) * rounds}",
        "reconnect_s_max": "<= 5", "rss_grown_mb_of_1_mb_line": "<= 4", "cpu_share_max": "< 0.05", "lanes_died": "== 0",
    }  # fmt: skip
    return judged(figure, bar, "counts are simulated; the serial line is a pseudo terminal")


class Rig:
    """Two lanes with a portal each, and the portal that both hear."""

    def __init__(self, folder: Path, peer: Peer, serial: SerialPeer) -> None:
        self.peer, self.serial = peer, serial
        self._state = folder / "state"
        lanes = zip(LANES, (peer.address, serial.address), strict=True)
        config = bed.write_config(folder, "".join(LANE.format(name=n, address=a) for n, a in lanes))
        self._rng = np.random.default_rng(1)
        self.number = 999_990
        self._gamma: list[list[int]] = []
        self.reconnect_s: list[float] = []
        self.grown_mb = 0.0
        self.service = bed.daemon(config)

    # ------------------------------------------------------------------------------------------------ what is said

    def say(self, data: bytes) -> None:
        """Say something on both lines."""
        self.peer.send(data)
        self.serial.send(data)

    def play(self, steps: list[Step], piece: int = 0) -> None:
        """Say lines at their times. piece : bytes at a time"""
        began_s = time.monotonic()
        for at_s, data in steps:
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            for first in range(0, len(data), piece or len(data)):
                self.say(data[first : first + (piece or len(data))])

    def vacant(self) -> bytes:
        """Return what a vacant portal says of its background."""
        return format_line("GB", [379, 371, 407, 371]) + format_line("NB", [3, 0, 2, 0])

    def passage(self) -> list[Step]:
        """Return the lines of the next vehicle with their seconds from its entry."""
        self.number = self.number % 999_999 + 1
        self._gamma = [[int(c) for c in row] for row in self._rng.poisson(76, (BURST + LIVE, 4))]
        lines = [format_line("GS", row) for row in self._gamma]
        steps = [(0.0, format_line("NS", [2, 0, 1, 0])), (0.19, b"".join(lines[:BURST]))]
        steps += [(0.19 + STEP_S * (n + 1), line) for n, line in enumerate(lines[BURST:])]
        steps += [(1.0, format_line("NS", [1, 0, 2, 0]))]
        end_s = 0.19 + STEP_S * LIVE + 0.05
        return [*sorted(steps, key=lambda s: s[0]), (end_s, format_line("GX", [self.number, 6000, 0, 0]))]

    def unplug(self) -> None:
        """Pull both plugs, put them back, and note how long it takes to be heard again."""
        self.peer.absent = True
        self.peer.cut()
        self.serial.cut()
        time.sleep(UNPLUGGED_S)
        opened = len(self.opened("serial"))
        self.serial.plug()
        self.peer.absent = False
        back_s, came = time.monotonic(), len(self.peer.came_s)
        bed.wait_until(lambda: len(self.opened("serial")) > opened, 20.0, "the serial line is opened again")
        self.peer.wait(came + 1)
        self.reconnect_s += [self.opened("serial")[opened]["heard_s"] - back_s, self.peer.came_s[came] - back_s]

    def opened(self, lane: str) -> list[dict[str, Any]]:
        """Return when a lane's portal was opened."""
        return self.service.named("device_open", lane=lane)

    # --------------------------------------------------------------------------------------------- what came of it

    def meet(self, name: str, fault: Fault) -> list[dict[str, Any]]:
        """Let one passage meet its fault; return what came of it, lane by lane."""
        say(f"R11: {name}")
        self.say(self.vacant())
        before, heard = {r[0] for r in self._rows()}, len(self.service.events)
        fault.do(self, self.passage())

        def stored() -> bool:
            return {r[1] for r in self._rows() if r[0] not in before} == set(LANES)

        bed.wait_until(stored, 30.0, f"{name}: the passage is stored in both lanes")
        return [self._looked_at(r, fault.told, heard) for r in self._rows() if r[0] not in before]

    def _looked_at(self, row: tuple[Any, ...], told: str, heard: int) -> dict[str, Any]:
        _, lane, outcome, path, result = row
        record = recording.read(Path(path)).scan.portal
        words = [str(q) for q in msgspec.json.decode(result, type=TriageResult).quality]
        if record is not None:
            words += [*record.faults, record.end_reason, *record.raw_lines]
        words += [str(e.get("text")) for e in self.service.events[heard:] if e.get("lane") == lane]
        whole = record is not None and self._is_whole(record)
        right = any(re.search(told, w) for w in words) if told else whole
        if not right:
            got = None if record is None else (record.gamma.shape, record.faults, record.end_reason)
            say(f"R11: {lane}: {got} {outcome} {[w[:100] for w in words[:12]]}")
        return {"lane": lane, "right": right, "clear": outcome == "CLEAR", "lossy": bool(told)}

    def _is_whole(self, record: PortalRecord) -> bool:
        lost = {"damaged_line", "unknown_line", "line_repeated"} & set(record.faults)
        return record.end_reason == "complete" and record.gamma.tolist() == self._gamma and not lost

    def _rows(self) -> list[tuple[Any, ...]]:
        database = oracle.database(self._state)
        try:
            return database.execute(
                "SELECT scan_id, lane, outcome, path, result FROM scans ORDER BY lane, start_utc_ns"
            ).fetchall()
        finally:
            database.close()

    def cpu(self, seconds: float) -> dict[str, float]:
        """Return the share of a core that each lane takes of a trickle of single bytes, and of garbage at that rate."""
        found: dict[str, float] = {}
        for name, source in (("trickle", self._trickle()), ("garbage", self._garbage())):
            pids = {e["lane"]: e["pid"] for e in self.service.named("lane_ready")}
            before = {lane: bed.cpu_s(pid) for lane, pid in pids.items()}
            began_s = time.monotonic()
            count = 0
            while (past_s := time.monotonic() - began_s) < seconds:
                for _ in range(int(past_s * TRICKLE_BYTES_PER_S) - count):
                    self.say(next(source))
                    count += 1
                time.sleep(1 / TRICKLE_BYTES_PER_S)
            past_s = time.monotonic() - began_s
            found |= {f"{name}, {lane}": (bed.cpu_s(pid) - before[lane]) / past_s for lane, pid in pids.items()}
        return found

    def _trickle(self) -> Iterator[bytes]:
        while True:
            yield from (bytes([b]) for b in self.vacant())

    def _garbage(self) -> Iterator[bytes]:
        while True:
            yield self._rng.bytes(1)


# --------------------------------------------------------------------------------------------------------------
# The faults

MIDDLE = BURST // 2 + 3
"""Steps after which something happens: the vehicle is in the portal, and half of it has passed."""


def _pulled(rig: Rig, steps: list[Step]) -> None:
    rig.play([*steps[:MIDDLE], (steps[MIDDLE][0], steps[MIDDLE][1][:9])])
    rig.unplug()


def _in_pieces(size: int) -> Callable[[Rig, list[Step]], None]:
    return lambda rig, steps: rig.play(steps, size)


def _with(data: bytes) -> Callable[[Rig, list[Step]], None]:
    def play(rig: Rig, steps: list[Step]) -> None:
        rig.play([*steps[:MIDDLE], (steps[MIDDLE - 1][0], data), *steps[MIDDLE:]])

    return play


def _torn(rig: Rig, steps: list[Step]) -> None:
    """NUL in the middle of a line."""
    at_s, line = steps[MIDDLE]
    rig.play([*steps[:MIDDLE], (at_s, line[:6] + b"\0\0" + line[6:]), *steps[MIDDLE + 1 :]])


def _long_line(rig: Rig, steps: list[Step]) -> None:
    pids = [e["pid"] for e in rig.service.named("lane_ready")]
    before = [bed.rss_mb(pid) for pid in pids]
    rig.play([*steps[:MIDDLE], (steps[MIDDLE - 1][0], MB_LINE), *steps[MIDDLE:]])
    rig.grown_mb = max(rig.grown_mb, *(bed.rss_mb(pid) - b for pid, b in zip(pids, before, strict=True)))


def _gap(rig: Rig, steps: list[Step]) -> None:
    """Gamma and neutron lines of a second do not come."""
    gone = range(MIDDLE, MIDDLE + 5)
    rig.play([s for n, s in enumerate(steps) if n not in gone])


def _wrap(rig: Rig, steps: list[Step]) -> None:
    """The count goes from 999,999 to 1 between this vehicle and the one before."""
    rig.number = 1
    rig.play([*steps[:-1], (steps[-1][0], format_line("GX", [1, 6000, 0, 0]))])


def _silent(rig: Rig, steps: list[Step]) -> None:
    """Nothing more comes: the passage ends by time, the link is given up, and it is heard again."""
    clients, opened = len(rig.peer.came_s), len(rig.opened("serial"))
    rig.play(steps[:MIDDLE])
    lost = len(rig.service.named("device_lost"))
    bed.wait_until(lambda: len(rig.service.named("device_lost")) >= lost + 2, 30.0, "both links are given up")
    rig.peer.wait(clients + 1)
    bed.wait_until(lambda: len(rig.opened("serial")) > opened, 20.0, "the serial line is opened again")
    lost_s = {e["lane"]: e["heard_s"] for e in rig.service.named("device_lost")}
    rig.reconnect_s.append(rig.peer.came_s[clients] - lost_s["tcp"])
    rig.reconnect_s.append(rig.opened("serial")[opened]["heard_s"] - lost_s["serial"])


FAULTS: dict[str, Fault] = {
    "nothing": Fault(_in_pieces(0), ""),
    "unplugged in the middle of a line": Fault(_pulled, "link_lost"),
    "reads of 7 bytes": Fault(_in_pieces(7), ""),
    "single bytes": Fault(_in_pieces(1), ""),
    "garbage": Fault(_with(bytes(range(128, 256)) + b"\n\xff,\xfe\r\n"), "damaged_line|unknown_line"),
    "NUL": Fault(_torn, "damaged_line"),
    "a line of 1 MB": Fault(_long_line, "damaged_line"),
    "a gap in gamma and neutron": Fault(_gap, "lines_lost"),
    "the count begins anew": Fault(_wrap, ""),
    "silence": Fault(_silent, "timed_out"),
}  # fmt: skip
