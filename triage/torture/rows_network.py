"""R8: the network between the service and an analyst cut, one way and both, reset, and bad."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scanner_io.errors import ConfigError

from . import bed
from .cable import THERE, Cable
from .line import Line
from .outcome import Outcome, judged, say, stood_in
from .site import Site

SCAN_BYTES = 200_000
LOOK_S = 60.0
"""How long it is waited for the first scan after the heal; then it never came."""


def r8_partitions(folder: Path, full: bool) -> Outcome:
    """Cut the network while scans are delivered and decided; a scan must come soon after each heal, and none twice."""
    times = (1.0, 10.0, 120.0) if full else (4.0,)
    with ExitStack() as stack:
        why = ""
        where: dict[str, Any] = {}
        net: Cable | Line | None = None
        try:
            net = cable = stack.enter_context(Cable())
            where = {"host": THERE, "before": cable.before}
        except ConfigError as error:
            why = str(error)
        s = Site(folder, **where)
        stack.callback(s.stop)
        people = [s.enrol("ana")]
        s.fill([os.urandom(SCAN_BYTES)] * (20_000 if full else 1_500))
        s.start()
        address = s.address
        if net is None:
            net = relay = stack.enter_context(Line(s.address))
            address = relay.address
        desk = stack.enter_context(bed.Desk(address, "ana", identity=people[0], think_s=0.02))
        bed.wait_until(lambda: len(desk.acknowledged) > 5, 60.0, "scans are delivered")
        resumed, leaked = {}, 0
        for name, cut, seconds in _plan(net, times, full):
            say(f"R8: {name}")
            cut()
            time.sleep(min(1.0, seconds / 2))  # what was on its way arrives
            before = len(desk.delivered)
            time.sleep(max(0.0, seconds - 1.0))
            leaked += len(desk.delivered) - before if "cut" in name else 0
            _heal(net)
            resumed[name] = round(_resumed(desk), 1)
        if isinstance(net, Cable):
            before = len(desk.delivered)
            net.delay_s, net.jitter_s, net.loss, net.bytes_per_s = 0.2, 0.05, 0.05, 10e6 / 8
            resumed["200 +-50 ms, 5 % loss, 10 Mbit/s"] = round(_resumed(desk), 1)
            time.sleep(60.0 if full else 3.0)
            on_bad = len(desk.delivered) - before
            net.heal()
            resumed["sound again"] = round(_resumed(desk), 1)
        desk.close()
        s.stop()
        twice = _shown_twice(s)
    figure = {
        "cuts": len(resumed), "resumed_s_max": max(resumed.values()), "resumed_s": resumed, "leaked": leaked,
        "delivered": len(desk.delivered), "decided": len(desk.acknowledged), "decided_twice": twice[0],
        "offered_after_decided": twice[1], "under_two_leases_at_once": twice[2], "troubles": len(desk.troubles),
        **({} if why else {"delivered_on_the_bad_line": on_bad}),
    }  # fmt: skip
    bar = {
        "resumed_s_max": "<= 15", "leaked": "== 0", "decided_twice": "== 0", "offered_after_decided": "== 0",
        "under_two_leases_at_once": "== 0", **({} if why else {"delivered_on_the_bad_line": "> 0"}),
    }  # fmt: skip
    outcome = judged(figure, bar)
    return stood_in(outcome, f"{why}; a relay of TCP connections stands in for the network") if why else outcome


def _plan(net: Cable | Line, times: tuple[float, ...], full: bool) -> list[tuple[str, Callable[[], None], float]]:
    """Return what is done to the network, and for how long."""

    def cut(up: bool, down: bool) -> Callable[[], None]:
        def do() -> None:
            net.up, net.down = up, down

        return do

    def refuse() -> None:
        if isinstance(net, Cable):
            net.refuses = True
        else:
            net.reset()

    plan = []
    for seconds in times:
        plan += [
            (f"cut {seconds:g} s", cut(False, False), seconds),
            (f"cut to the service {seconds:g} s", cut(False, True), seconds),
            (f"cut from the service {seconds:g} s", cut(True, False), seconds),
            (f"reset {seconds:g} s", refuse, seconds),
        ]
    return plan if full else [plan[0], plan[2], ("reset 1 s", refuse, 1.0)]


def _heal(net: Cable | Line) -> None:
    net.up = net.down = True
    if isinstance(net, Cable):
        net.heal()


def _resumed(desk: bed.Desk) -> float:
    """Return after how many seconds from now a scan has come that was asked for, whole."""
    now_s, count = time.monotonic(), len(desk.delivered)
    while time.monotonic() < now_s + LOOK_S:
        if len(desk.delivered) > count:
            return desk.last_s - now_s
        time.sleep(0.02)
    return LOOK_S


def _shown_twice(s: Site) -> tuple[int, int, int]:
    """Return how many scans were decided twice, offered after that, and given to two at once, by the audit."""
    decided: Counter[str] = Counter()
    on_lease: dict[str, str] = {}
    after = at_once = 0
    for kind, scan, text in s.rows("SELECT kind, scan_id, text FROM events WHERE scan_id<>'' ORDER BY seq"):
        if kind == "leased":
            after += decided[scan] > 0
            at_once += scan in on_lease
            on_lease[scan] = text
        elif kind in ("released", "held", "decided"):
            on_lease.pop(scan, None)
            decided[scan] += kind == "decided"
    return sum(n > 1 for n in decided.values()), after, at_once
