"""R9, R18: slow, frozen and absent analysts; and all of them back at once."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scanner_io import security, wire

from . import bed
from .line import Line
from .outcome import Outcome, judged, percentile, say
from .site import Bare, Site, site

MEGA = 1e6
SCAN_BYTES = 2_000_000
LINE_BYTES_PER_S = 10e6
"""80 Mbit/s to a workstation: the line is what takes the time, and not who else computes on this machine."""
SLOW_BYTES_PER_S = 100e3
LEASE_S = 5.0
EIGHT_HOURS_OF_SCANS = 4 * 8 * 3600 // 20
"""Of four lanes, a vehicle every 20 s in each."""

ONLY_FETCHES = """
import json, sys
from pathlib import Path
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError
from scanner_io.security import load_identity
with Workstation(sys.argv[1], identity=load_identity(Path(sys.argv[2])), capacity=1) as desk:
    offer = desk.next_offer(60)
    print(json.dumps({"event": "has", "scan": offer.scan_id}), flush=True)
    while True:
        try:
            desk.fetch(offer)
        except DeliveryError:
            pass
"""


def r9_slow_analysts(folder: Path, full: bool) -> Outcome:
    """One on a line of 100 kB/s, one frozen in mid-fetch, one that holds a scan and says nothing; the others' times."""
    slices, slice_s = (12, 10.0) if full else (2, 3.0)
    scans = [os.urandom(SCAN_BYTES)] * int((2 * slices * slice_s + 30) * LINE_BYTES_PER_S / SCAN_BYTES)
    figure = _absent(folder / "absent", EIGHT_HOURS_OF_SCANS if full else 500)
    with site(folder / "present", scans, lease_s=LEASE_S) as s, ExitStack() as stack:
        line = stack.enter_context(Line(s.address, LINE_BYTES_PER_S))
        desk = stack.enter_context(bed.Desk(line.address, "ana", identity=s.enrol("ana"), capacity=2))
        bed.wait_until(lambda: len(desk.seconds) > 5, 60.0, "scans are delivered")
        calm = [_p99_of_slice(desk, slice_s) for _ in range(slices)]
        rss_mb = s.rss_mb()
        slow, frozen = (
            _who_only_fetches(s, name, stack, at) for name, at in (("ben", SLOW_BYTES_PER_S), ("cleo", 1e12))
        )
        mute = stack.enter_context(Bare(s.address, s.enrol("dora")))
        mute.hello(capacity=1)
        held = mute.wait_for(wire.Offer)
        held_s = time.monotonic()
        slow.wait_for("has")
        stopped = frozen.wait_for("has")
        frozen.signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        most_mb: list[float] = []

        def disturbed() -> float:
            mute.hear(0.0)
            most_mb.append(s.rss_mb())
            return _p99_of_slice(desk, slice_s, lambda: mute.hear(0.05))

        hit = [disturbed() for _ in range(slices)]
        until = {(held.scan_id, "dora"): held_s, (str(stopped["scan"]), "cleo"): stopped_s}
        again = bed.wait_until(lambda: _given_to_others(s, until), 3 * LEASE_S, "leases go to others")
        most_mb.append(s.rss_mb())
    figure |= {
        "calm_p99_ms": [round(1e3 * t) for t in calm], "disturbed_p99_ms": [round(1e3 * t) for t in hit],
        "p99_share": round(statistics.median(hit) / statistics.median(calm), 3), "deliveries": len(desk.seconds),
        "rss_grown_mb": round(max(most_mb) - rss_mb, 1), "reassigned_s": [round(t, 1) for t in again],
        "reassigned_s_max": round(max(again), 1), "troubles": len(desk.troubles),
    }  # fmt: skip
    bar = {
        "p99_share": "< 1.1", "rss_grown_mb": "<= 64", "reassigned_s_max": f"<= {LEASE_S + 5}",
        "absent_rss_grown_mb": "<= 64", "troubles": "== 0",
    }  # fmt: skip
    note = f"medians of the p99 of slices of {slice_s:g} s; the others are behind a line of 80 Mbit/s"
    return judged(figure, bar, "; ".join([note, *desk.troubles[:1]]))


def _who_only_fetches(s: Site, name: str, stack: ExitStack, bytes_per_s: float) -> bed.Child:
    """Return an analyst's program, at the end of a line of its own, that takes a scan and fetches it over and over."""
    key = s.folder / f"{name}.key"
    security.save_identity(key, s.enrol(name))
    line = stack.enter_context(Line(s.address, bytes_per_s))
    return stack.enter_context(bed.Child("-c", ONLY_FETCHES, line.address, str(key), name=name))


def _p99_of_slice(
    desk: bed.Desk, slice_s: float, meanwhile: Callable[[], object] = lambda: time.sleep(0.05)
) -> float:  # fmt: skip
    """Return the p99 of the seconds that the fetches of one slice of time took."""
    first, until_s = len(desk.seconds), time.monotonic() + slice_s
    while time.monotonic() < until_s:
        meanwhile()
    return percentile(desk.seconds[first:], 0.99) or float("inf")


def _given_to_others(s: Site, held: dict[tuple[str, str], float]) -> list[float] | None:
    """Return after how many seconds each scan went from its holder to somebody else; None while one has not."""
    found: dict[str, float] = {}
    for event in s.named("offered"):
        for (scan, who), at_s in held.items():
            if event["scan"] == scan and event["analyst"] != who and event["heard_s"] > at_s:
                found.setdefault(scan, event["heard_s"] - at_s)
    return list(found.values()) if len(found) == len(held) else None


def _absent(folder: Path, count: int) -> dict[str, Any]:
    """Return how the daemon's memory grows by what nobody has fetched."""
    with site(folder) as s:
        s.enrol("ana")
        time.sleep(1.0)
        before_mb = s.rss_mb()
        s.stop()
        s.fill([os.urandom(1000)] * count)
        s.start()
        with bed.Desk(s.address, "ben", identity=s.enrol("ben"), capacity=2) as desk:
            bed.wait_until(lambda: len(desk.acknowledged) > 20, 60.0, "scans are decided")
            grown_mb = s.rss_mb() - before_mb
    return {"absent_scans": count, "absent_rss_grown_mb": round(grown_mb, 1)}


# --------------------------------------------------------------------------------------------------------------
# R18

BACKLOG_SCAN_BYTES = 4_000_000
ANALYSTS = 6


def r18_backlog(folder: Path, full: bool) -> Outcome:
    """Nobody was there, and all come back at once: how fast the backlog is gone, who gets how much, in what order."""
    count = 10_000 if full else 60
    alarms, reviews = os.urandom(BACKLOG_SCAN_BYTES), os.urandom(BACKLOG_SCAN_BYTES)
    (folder / "site").mkdir()
    s = Site(folder / "site")
    urgent = set(s.fill([alarms] * (count // 10), "ALARM"))
    later = s.fill([reviews] * (count - len(urgent)))
    s.start()
    try:
        people = [s.enrol(f"ana{n}") for n in range(ANALYSTS)]
        began_s = time.monotonic()
        desks = [bed.Desk(s.address, p.name, identity=p) for p in people]
        order: list[str] = []

        def drained() -> bool:
            done = sum(len(d.acknowledged) for d in desks)
            say(f"R18: {done} of {count} scans", every_s=5.0)
            return done >= count

        bed.wait_until(drained, 30.0 + count * BACKLOG_SCAN_BYTES / 10e6, "the backlog is gone")
        seconds = max(d.last_s for d in desks) - began_s
        for desk in desks:
            desk.close()
        order = [e["scan"] for e in s.named("offered")]
    finally:
        s.stop()
    delivered = [scan for d in desks for scan in d.delivered]
    shares = sorted(len(d.delivered) / (count / ANALYSTS) for d in desks)
    figure = {
        "scans": count, "mb_per_s": round(count * BACKLOG_SCAN_BYTES / MEGA / seconds, 1), "analysts": ANALYSTS,
        "delivered": len(set(delivered)), "twice": len(delivered) - len(set(delivered)),
        "least_share": round(shares[0], 2), "largest_share": round(shares[-1], 2),
        "out_of_order": _out_of_order(order, [*sorted(urgent), *later]),
        "troubles": sum(len(d.troubles) for d in desks),
    }  # fmt: skip
    bar = {
        "mb_per_s": ">= 50", "delivered": f"== {count}", "twice": "== 0", "least_share": ">= 0.5",
        "out_of_order": "== 0", "troubles": "== 0",
    }  # fmt: skip
    note = f"with CURVE, {BACKLOG_SCAN_BYTES / MEGA:g} MB each, service and analysts on the same cores"
    return judged(figure, bar, note)


def _out_of_order(offered: list[str], right: list[str]) -> int:
    """Return how many scans were not offered in their turn: the most urgent first, then the oldest."""
    return sum(a != b for a, b in zip(offered, right, strict=False)) + abs(len(offered) - len(right))
