"""R10: an image scanner that sends what it should not, beside lanes that must not notice.

Images are simulated. They come over the frame protocol of `drivers.line_tcp` and as files, so that each fault is met
where it can be. What is asked of every fault: it is told (an event of the log, or a flag of its scan), what came of it
is kept apart (a recording that says so, or a file in quarantine), and nothing of it reads as clear. The sound image
before and after them is judged CLEAR, without any of those words.
"""

from __future__ import annotations

import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scanner_io.errors import DeliveryError
from scanner_io.model import TriageResult

from . import bed, oracle
from .outcome import Outcome, judged, percentile, say
from .peer import Peer
from .scanner import CHANNELS, COLUMNS, LINES, Image, LineScanner

ALIVE_S = 0.3
BURST = 100
FILES = """
[[lane]]
name = "files"
join_window_s = 0
join_wait_s = 0

[[lane.device]]
driver = "file_drop"
path = "{folder}"
pattern = ["*.png", "*.tif"]
stable_s = 0.0
partial_after_s = 0.5
poll_s = 0.05
"""


class Fault(NamedTuple):
    """What is done, what must be told of it, and how many scans must come of it (None: one or none)."""

    do: Callable[[Rig], None]
    told: str
    scans: int | None = 1


def r10_driver_faults(folder: Path, full: bool) -> Outcome:
    """Let a line scanner and a folder of files go wrong in every way, while a third lane works on."""
    with Peer() as peer:
        rig = Rig(folder, peer)
        with rig.running():
            calm = rig.others(10 if full else 4)
            sound = rig.sound()
            found = {name: rig.meet(name, fault) for name, fault in FAULTS.items()}
            found["burst of 100"] = rig.burst()
            reconnects = rig.reconnect(1440 if full else 5)
            sound &= rig.sound()
            troubled = [s for f in found.values() for s in f["others_s"]]
            died = len(rig.service.named("lane_died"))
            bed.wait_until(lambda: not rig.other.waiting(), 60.0, "the other lane's files are taken")
            rig.service.stop()
    checked = oracle.check(folder / "state", [rig.other])
    figure = {
        "faults": len(found), "told": sum(f["told"] for f in found.values()),
        "kept_apart": sum(f["apart"] for f in found.values()), "read_as_clear": sum(f["clear"] for f in found.values()),
        "not_told": [n for n, f in found.items() if not f["told"]], "sound_is_clear": int(sound),
        "burst_stored": found["burst of 100"]["scans"], **reconnects, "lanes_died": died,
        "others_median_s": round(percentile(calm, 0.5) or 0.0, 2), "others_worst_s": round(max(troubled), 2),
        **checked.figure(),
    }  # fmt: skip
    bar = {
        "told": f"== {len(found)}", "kept_apart": f"== {len(found)}", "read_as_clear": "== 0", "sound_is_clear": "== 1",
        "burst_stored": f"== {BURST}", "reconnect_s_max": "<= 5", "threads_grown": "<= 0", "fds_grown": "<= 0",
        "lanes_died": "== 0", "others_worst_s": "<= 10", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, f"{checked.words()}; images are simulated".strip("; "))


class Rig(LineScanner):
    """A daemon with three lanes: one with a line scanner, one of files, and one that must not notice."""

    def __init__(self, folder: Path, peer: Peer) -> None:
        super().__init__(peer)
        self.folder, self.state = folder / "files", folder / "state"
        self.folder.mkdir()
        self.other = oracle.Stimulator(folder / "other")
        self._config = bed.write_config(
            folder, self.lane("ill") + FILES.format(folder=self.folder) + bed.drop_lane(self.other.folder, "other")
        )
        self._images = 0
        self.given: tuple[int, int, Image]
        """Number, time and counts of the sound image."""
        self.turn = threading.RLock()
        """Whose turn it is to speak as the device."""
        self.silent = False
        self._ending = threading.Event()
        self._alive = threading.Thread(target=self._stay_alive, name="alive", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the daemon, and the device that says that it is well when it has nothing else to say."""
        self.service = bed.daemon(self._config)
        try:
            bed.ready(self.service, 3)
            self.peer.wait()
            self._alive.start()
            yield
        finally:
            self._ending.set()
            if self._alive.is_alive():
                self._alive.join(10)
            self.service.kill()

    def _stay_alive(self) -> None:
        while not self._ending.wait(ALIVE_S):
            with self.turn, suppress(OSError, DeliveryError):  # cut off: the driver comes again
                if not self.silent:
                    self.peer.send(self.alive())

    # ------------------------------------------------------------------------------------------------ what is sent

    def drop(self, name: str, data: bytes) -> None:
        """Put a file into the folder, whole at once."""
        part = self.folder / f".{name}.tmp"
        part.write_bytes(data)
        part.rename(self.folder / name)

    # ---------------------------------------------------------------------------------------------- what came of it

    def sound(self) -> bool:
        """Send an image in which nothing is wrong; tell whether nothing was told of it."""
        self._images += 1  # no vehicle's counts are those of another
        image = self.image.copy()
        image[::7, : self._images] ^= 1
        met = self._met(lambda: self.peer.send(self.frames(image)), "", 1)
        self.given = self._scan, self._clock_ns, image
        codes = [str(q) for r in met["results"] for q in r.quality]
        words = " ".join(met["said"])
        bad = [name for name, fault in FAULTS.items() if any(re.search(fault.told, t) for t in (*codes, words))]
        outcomes = [r.outcome for r in met["results"]]
        if bad or outcomes != ["CLEAR"]:
            say(f"R10: a sound image is {outcomes} and told to be {bad}: {codes} {words}")
        return not bad and outcomes == ["CLEAR"]

    def meet(self, name: str, fault: Fault) -> dict[str, Any]:
        """Let one fault happen and see what came of it."""
        say(f"R10: {name}")
        met = self._met(lambda: fault.do(self), fault.told, fault.scans)
        quarantined = list((self.folder / "quarantine").glob("*"))
        met["apart"] = int(bool(met["scans"] or quarantined) or fault.scans is None)
        if not met["told"]:
            say(f"R10: {name}: not told: {[[q.code for q in r.quality] for r in met['results']]} {met['said']}")
        return met

    def burst(self) -> dict[str, Any]:
        """Send many small scans without a pause."""
        say("R10: burst of 100")

        def send() -> None:
            for n in range(BURST):
                self.peer.send(self.frames(self.image[n : n + 40]))

        met = self._met(send, "", BURST, 90.0)
        # nothing is to be told of a burst that was taken whole
        return {**met, "told": int(met["scans"] == BURST), "apart": int(met["scans"] == BURST)}

    def reconnect(self, times: int) -> dict[str, Any]:
        """Break the link again and again, a few bytes after each time it is back."""
        pid = self.service.named("lane_ready", lane="ill")[-1]["pid"]
        waits, before = [], (0, 0)
        for number in range(times):
            say(f"R10: reconnect {number} of {times}", every_s=5.0)
            with self.turn:
                self.peer.send(b"SLN1 and no more" if number % 3 == 0 else self.frames(self.image[:50])[:2])
            if number == times // 5:
                before = threads(pid), descriptors(pid)
            self.peer.cut()
            cut_s = time.monotonic()
            self.peer.wait(len(self.peer.came_s) + 1 if self.peer.came_s[-1] < cut_s else 0)
            waits.append(self.peer.came_s[-1] - cut_s)
        self.settle()
        return {
            "reconnects": times, "reconnect_s_max": round(max(waits), 2), "threads_grown": threads(pid) - before[0],
            "fds_grown": descriptors(pid) - before[1],
        }  # fmt: skip

    def others(self, count: int) -> list[float]:
        """Let scans pass the lane that must not notice; return how long each took to be stored."""
        took = []
        for _ in range(count):
            began_s = time.monotonic()
            self.other.put()
            bed.wait_until(lambda: not self.other.waiting(), 60.0, "the other lane's file is taken")
            took.append(time.monotonic() - began_s)
        return took

    def settle(self, wait_s: float = 0.6) -> None:
        """Wait until nothing more is stored."""
        count = -1
        while count != (now := len(self._rows())):
            count = now
            time.sleep(wait_s)

    def _met(self, do: Callable[[], None], told: str, scans: int | None, wait_s: float = 15.0) -> dict[str, Any]:
        self.peer.wait()
        before, heard, links = {r[0] for r in self._rows()}, len(self.service.events), len(self.peer.came_s)
        began_s = time.monotonic()
        with self.turn:
            do()
        others_s = self.others(1)
        until_s = began_s + wait_s
        while time.monotonic() < until_s:
            new = [r for r in self._rows() if r[0] not in before]
            if len(new) >= (scans or 0) and (self._heard(told, heard, new) or scans is None or not told):
                break
            time.sleep(0.05)
        if self.silent:  # the link was given up: what comes next must not go into the old one
            self.peer.wait(links + 1)
        self.silent = False
        new = [r for r in self._rows() if r[0] not in before]
        results = [msgspec.json.decode(r[2], type=TriageResult) for r in new]
        return {
            "scans": len(new), "clear": sum(r[1] == "CLEAR" for r in new) if told else 0, "results": results,
            "told": int(self._heard(told, heard, new)), "others_s": others_s, "said": self._words(heard),
        }  # fmt: skip

    def _words(self, since: int) -> list[str]:
        return [
            f"{e.get('event')} {e.get('text', '')}" for e in self.service.events[since:]
            if e.get("lane") in ("ill", "files") and e.get("event") not in ("scan", "device_open", "device_back")
        ]  # fmt: skip

    def _heard(self, told: str, since: int, rows: list[tuple[Any, ...]]) -> bool:
        codes = [str(q) for r in rows for q in msgspec.json.decode(r[2], type=TriageResult).quality]
        return any(re.search(told, text) for text in (*codes, *self._words(since)))

    def _rows(self) -> list[tuple[Any, ...]]:
        with oracle.database(self.state) as database:
            rows = database.execute("SELECT scan_id, outcome, result FROM scans WHERE lane<>'other'").fetchall()
        database.close()
        return rows


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# --------------------------------------------------------------------------------------------------------------
# The faults


def _half(rig: Rig) -> None:
    frames = rig.frames(rig.image)
    rig.silent = True  # until the link is given up
    rig.peer.send(frames[: len(frames) // 2])


def _of_size(columns: int, channels: int) -> Callable[[Rig], None]:
    def send(rig: Rig) -> None:
        rig.peer.send(rig.frames(np.full((columns, channels), 40_000, np.uint16)))

    return send


def _twice_the_rows(rig: Rig) -> None:
    """Blocks with twice the lines that their headers say."""
    line = rig._line  # noqa: SLF001
    twice = np.repeat(rig.image[:LINES], 2, axis=0)
    frames = rig.frames(rig.image)
    header = list(line.HEADER.unpack_from(frames[1]))
    payload = bytes(4 * LINES) + twice.tobytes()
    header[11] = len(payload)
    packed = line.HEADER.pack(*header) + payload
    frames[1] = packed + struct.pack("<I", zlib.crc32(packed))
    rig.peer.send(frames)


def _image(change: Callable[[Image], Image]) -> Callable[[Rig], None]:
    return lambda rig: rig.peer.send(rig.frames(np.ascontiguousarray(change(rig.image))))


def _frozen(image: Image) -> Image:
    """The grabber gives its last frame again and again."""
    held = image.copy()
    held[600:800] = np.tile(image[550:600], (4, 1))
    return held


def _same_number(rig: Rig) -> None:
    """Another vehicle under the number and time of the sound one."""
    scan, utc_ns, _ = rig.given
    rig.peer.send(rig.frames(np.ascontiguousarray(rig.image[::-1]), scan=scan, utc_ns=utc_ns))


def _out_of_order(rig: Rig) -> None:
    frames = rig.frames(rig.image)
    frames[5], frames[6] = frames[6], frames[5]
    rig.peer.send(frames)


def _file(name: str, data: bytes) -> Callable[[Rig], None]:
    return lambda rig: rig.drop(name, data)


def _float_tiff() -> bytes:
    """Return a TIFF of 32-bit floats with NaN and infinities."""
    image = np.full((64, 64), 0.5, "<f4")
    image[10:20], image[30:40] = np.nan, np.inf
    tags = [(256, 64), (257, 64), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64), (279, image.nbytes),
            (339, 3)]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + image.nbytes) + image.tobytes() + directory


FAULTS: dict[str, Fault] = {
    "half an image, then silence": Fault(_half, r"cut_off|link_lost|no byte for"),
    "wrong size": Fault(_of_size(COLUMNS, 200), r"numbers for 200 channels"),
    "twice the rows": Fault(_of_size(COLUMNS, 2 * CHANNELS), r"numbers for 1152 channels"),
    "blocks of twice the rows they name": Fault(_twice_the_rows, r"50 lines of 1 energies"),
    "0 x 0": Fault(_of_size(0, 0), r"without a single line"),
    "byte-swapped": Fault(_image(lambda i: i.byteswap()), r"bytes_swapped"),
    "8 bits": Fault(_image(lambda i: (i // 257 * 257).astype(np.uint16)), r"display_windowed"),
    "frozen frame": Fault(_image(_frozen), r"repeated_columns"),
    "duplicate id": Fault(_same_number, "number_given_before"),
    "the last image again": Fault(lambda rig: rig.peer.send(rig.frames(rig.given[2])), "image_given_before"),
    "out of order": Fault(_out_of_order, r"came after|came again"),
    "NaN and infinity": Fault(_file("nan.tif", _float_tiff()), r"expected uint8 or uint16"),
    "a file of 0 x 0": Fault(_file("none.png", oracle.png(0, 0, 1)), r"radiograph_unreadable"),
    "half a file": Fault(_file("half.png", oracle.png(96, 48, 2)[:-40]), r"radiograph_unreadable"),
}  # fmt: skip
