"""A line scanner with simulated images, which speaks the frame protocol of `drivers.line_tcp` to a peer's client."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner_io import driver

from .peer import Peer

Image = NDArray[np.uint16]

COLUMNS, CHANNELS = 1200, 576
LINES = 50
"""In a frame."""
SILENCE_S = 2.0
LANE = """
[[lane]]
name = "{name}"
join_window_s = 0
join_wait_s = 0
passage_timeout_s = 5

[[lane.device]]
driver = "line_tcp"
address = "{address}"
silence_s = {silence_s}
clock_error_s = 86400

[lane.device.detector]
energies = ["high"]
dark = [{dark}]
air = [{air}]
first_channel = "{first}"
column_pitch_mm = {column_mm}
channel_pitch_mm = {channel_mm}
bad_channels = {bad}
"""


class LineScanner:
    """The device: it numbers its frames and scans, and gives every scan a time of its own."""

    APART_NS = 60 * 10**9

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._line = driver.load("line_tcp")
        simulated = driver.load("simulated")
        settings = simulated.Config(
            seed=1, columns=COLUMNS, channels=CHANNELS, energies=1, cargo={"empty": 1.0}, threat_share=0.0,
            portal=False, declarations=False,
        )  # fmt: skip
        radiograph = simulated.simulate_radiograph(settings, 0)
        self.image: Image = radiograph.counts[0]
        """Of an empty container: nothing is to be found in it."""
        self._state = radiograph.detector
        self._scan = self._sequence = 0
        self.began_ns = self._clock_ns = time.time_ns()
        """Scan number n, from 1, begins n times `APART_NS` later."""

    def lane(self, name: str, silence_s: float = SILENCE_S) -> str:
        """Return the table of the lane at which it stands."""
        state = self._state
        return LANE.format(
            name=name, address=self.peer.address, silence_s=silence_s, first=state.first_channel,
            dark=[float(v) for v in state.dark[0]], air=[float(v) for v in state.air[0]],
            column_mm=state.column_pitch_mm, channel_mm=state.channel_pitch_mm,
            bad=[int(c) for c in np.flatnonzero(state.bad_channels)],
        )  # fmt: skip

    def frames(
        self, image: Image, *, scan: int | None = None, utc_ns: int | None = None, lines: int = LINES
    ) -> list[bytes]:
        """Return the frames of one scan; each has a number and a time of its own unless they are given.

        lines : in a frame
        """
        if scan is None or utc_ns is None:
            self._scan += 1
            self._clock_ns += self.APART_NS
            scan, utc_ns = self._scan, self._clock_ns
        shape = {"energies": 1, "channels": image.shape[1], "scan": scan, "flags": 1, "period_ns": 500_000}
        made = [self._frame(self._line.BEGIN, utc_ns=utc_ns, **shape)]
        for first in range(0, len(image), lines):
            part = image[first : first + lines]
            made.append(
                self._frame(
                    self._line.LINES, payload=bytes(4 * len(part)) + part.astype("<u2").tobytes(), first_line=first,
                    lines=len(part), utc_ns=utc_ns + first * 500_000, **shape,
                )
            )  # fmt: skip
        made.append(self._frame(self._line.END, first_line=len(image), utc_ns=utc_ns, scan=scan))
        return made

    def alive(self) -> bytes:
        """Return the frame by which it says that it is well."""
        return self._frame(self._line.ALIVE)

    def _frame(self, kind: int, **fields: Any) -> bytes:
        self._sequence += 1
        made: bytes = self._line.frame(kind, sequence=self._sequence, **fields)
        return made
