"""When flagged scans wait and nobody takes them: an alarm, told again and again until somebody does.

Every scan that has waited too long gets an event of its own in the audit, once. What is told to people is the whole:
how many wait, the most urgent, the longest; at first at once, then less and less often, and when it is over. A scan
counts as taken when its recording is asked for: a workstation that is on with nobody before it takes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from scanner_io import wire
from scanner_io.config import Dispatch as DispatchConfig

from .outbox import Outbox, Waiting

LOOK_S = 2.0
AT_ONCE = 50
"""Events of single scans written at one look: a backlog is no reason to hold up the loop."""


class Escalation:
    """The alarm of one service. `step` from its loop."""

    def __init__(
        self, config: DispatchConfig, outbox: Outbox, log: Callable[..., None], tell: Callable[[wire.Alarm], None], *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Make it. tell : sends to whoever is connected"""
        self._config, self._outbox = config, outbox
        self._log, self._tell = log, tell
        self._monotonic = monotonic
        self._looked_s = -LOOK_S
        self._again_s = config.escalate_again_s
        self._told_s = 0.0
        self._held = 0
        self.alarm: wire.Alarm | None = None
        """In force, None where nothing is to be told."""

    def step(self, analysts: int) -> None:
        """Look whether scans wait too long. analysts : connected who could take them. Raises StorageError."""
        now_s = self._monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        found = self._outbox.waiting(self._config.escalate_s)
        if found is None:
            if self.alarm is not None:
                self._say(
                    wire.Alarm(kind="unattended", text="nothing waits any more", utc_ns=time.time_ns(), over=True)
                )
            self.alarm = None
            return
        for scan_id, text in self._outbox.escalate(self._config.escalate_s, AT_ONCE):
            self._log("unattended", level="error", scan=scan_id, text=text)
        alarm = _alarm(found, analysts)
        new_held = self.alarm is not None and found.held > self._held
        due = self.alarm is None or now_s - self._told_s >= self._again_s
        if due or new_held:
            if self.alarm is None or new_held:
                self._again_s = self._config.escalate_again_s
            else:
                self._again_s = min(2 * self._again_s, self._config.escalate_again_max_s)
            self._told_s = now_s
            self._say(alarm)
        self.alarm, self._held = alarm, found.held

    def _say(self, alarm: wire.Alarm) -> None:
        """Tell the audit, the log and everybody who is connected, in this order."""
        kind = "alarm_over" if alarm.over else "alarm"
        self._outbox.note(kind, alarm.text, alarm.scan_id)
        self._log(kind, level="info" if alarm.over else "error", scan=alarm.scan_id, text=alarm.text)
        self._tell(alarm)


def _alarm(found: Waiting, analysts: int) -> wire.Alarm:
    long = f"{found.waited_s:.0f} s" if found.waited_s < 120 else f"{found.waited_s / 60:.0f} min"
    held = f", held for a supervisor: {found.held}" if found.held else ""
    text = (
        f"flagged scans that nobody takes: {found.scans}{held}; longest {long}, most urgent {found.scan_id} "
        f"({found.outcome}); analysts connected: {analysts or 'none'}"
    )
    return wire.Alarm(
        kind="unattended", text=text, utc_ns=time.time_ns(), scan_id=found.scan_id, waiting=found.scans,
        waited_s=found.waited_s,
    )  # fmt: skip
