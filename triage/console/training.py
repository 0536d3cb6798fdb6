"""Training: scans whose truth is known, in a queue of their own; feedback after each decision, figures over time.

A training folder holds recordings and a file that says what each really carries: `scanlane simulate --threats 0.5
--truth FOLDER/truth.json --out FOLDER`, or `scanlane study training-set`, which puts threats into real scans. To the
rest of the console it is one more service, named "training": it is claimed, fetched, looked at and decided like any
other, but its decisions never leave this desk, and are written down as training.
"""

from __future__ import annotations

import hashlib
import math
import random
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scanner_io import wire
from scanner_io.errors import ConfigError, DataError, DeliveryError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Box, Verdict

from .journal import Journal

ADDRESS = "training"
TRUTH = "truth.json"
SHOWN = 12
"""Scans that wait in the training queue at once."""
Z = statistics.NormalDist()


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What a vehicle of a training folder really carries. threat : empty where everything belongs."""

    file: str | None
    scan_id: str | None
    threat: str = ""
    threat_box: Box | None = None
    threat_pixels: int = 1


class _TruthFile(msgspec.Struct, kw_only=True):
    vehicles: list[Carried]


class Training:
    """The training queue of one desk, asked like a `Workstation`. Thread-safe."""

    def __init__(self, folder: Path, journal: Journal, analyst: str, readers: ForeignFiles) -> None:
        """Read what the folder holds. Raises ConfigError if that is no training folder."""
        self._journal = journal
        self._analyst = analyst
        self._readers = readers
        self._lock = threading.Lock()
        try:
            told = msgspec.json.decode((folder / TRUTH).read_bytes(), type=_TruthFile)
        except OSError as error:
            raise ConfigError(
                [f"{folder / TRUTH}: cannot be read ({error}); make a training folder with  scanlane simulate "
                 f"--threats 0.5 --out {folder} --truth {folder / TRUTH}"]
            ) from error  # fmt: skip
        except msgspec.MsgspecError as error:
            raise ConfigError([f"{folder / TRUTH}: {error}"]) from error
        paths = {path.name: path for path in folder.rglob("*.scan.h5")}
        # A threat that changes no pixel cannot be seen: nobody is to be told that they missed it.
        self._truth = {
            v.scan_id: v for v in told.vehicles
            if v.scan_id and v.file in paths and not (v.threat and v.threat_box and not v.threat_pixels)
        }  # fmt: skip
        self._paths = {v.scan_id: paths[v.file] for v in self._truth.values() if v.file and v.scan_id}
        if not self._truth:
            raise ConfigError([f"{folder / TRUTH}: names no recording that is in {folder}"])
        self._offers: dict[str, wire.Offer] = {}
        self._order: list[str] = []

    @property
    def silent_s(self) -> float:
        """Seconds since it was last heard: it is always here."""
        return 0.0

    def connected(self, timeout_s: float = 5.0) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Nothing is held open."""

    def lost(self, offer: wire.Offer) -> str:
        """Return why a scan is no longer this desk's: it always is."""
        return ""

    def acted(self) -> None:
        """Nothing: nobody else waits for these scans."""

    def release(self, offer: wire.Offer) -> None:
        """Give a scan back."""
        with self._lock:
            self._offers.pop(offer.scan_id, None)

    def queue(self, timeout_s: float = 5.0, *, after: str = "") -> wire.Queue:
        """Return the next scans, in an order drawn anew for every round; what was decided comes last again."""
        with self._lock:
            self._order = [scan_id for scan_id in self._order if scan_id in self._truth]
            if not self._order:
                self._order = random.sample(sorted(k for k in self._truth if k), len(self._truth))
            shown = self._order[:SHOWN]
            rows = tuple(
                wire.QueueRow(
                    scan_id=scan_id, lane=scan_id.split("-")[0], outcome="REVIEW", start_utc_ns=time.time_ns(),
                    state="leased" if scan_id in self._offers else "pending",
                    analyst=self._analyst if scan_id in self._offers else "", reasons=(), simulated=True,
                )
                for scan_id in shown
            )  # fmt: skip
        # the same instant for all rows each time: they do not age
        return wire.Queue(rows=tuple(msgspec.structs.replace(r, start_utc_ns=0) for r in rows), counts={})

    def claim(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Take one scan. Raises DeliveryError, DataError."""
        offer = msgspec.structs.replace(self.peek(scan_id), lease_id=uuid.uuid4().hex, lease_s=3600.0)
        with self._lock:
            self._offers[scan_id] = offer
        return offer

    def has(self, offer: wire.Offer) -> None:
        """Nobody is waiting to hear it."""

    def opine(
        self, offer: wire.Offer, verdict: Verdict, note: str, *, blind: bool = True, timeout_s: float = 10.0
    ) -> wire.Opined:  # fmt: skip
        """Raise DeliveryError: nobody else is here."""
        raise DeliveryError(f"scan {offer.scan_id}: is a training scan, which nobody else sees: decide it yourself")

    def peek(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Return what `claim` would, without taking the scan. Raises DeliveryError, DataError."""
        path = self._paths.get(scan_id)
        if path is None:
            raise DeliveryError(f"scan {scan_id[:80]}: is not in this training folder")
        data = self._bytes(path)
        found = self._readers.recording_of(data, str(path))
        if found.result is None or found.scan.scan_id != scan_id:
            raise DataError(f"{path}: holds no judged recording of {scan_id}")
        return wire.Offer(
            scan_id=scan_id, lease_id="", lease_s=0.0, size=len(data), sha256=hashlib.sha256(data).hexdigest(),
            lane=found.scan.lane, start_utc_ns=found.scan.start_utc_ns, attempt=1, simulated=True, result=found.result,
            declaration=found.scan.declaration,
        )  # fmt: skip

    def fetch(
        self, offer: wire.Offer, timeout_s: float = 60.0, *, progress: Callable[[int], None] | None = None
    ) -> memoryview:  # fmt: skip
        """Return the bytes of the recording. Raises DeliveryError."""
        data = self._bytes(self._paths[offer.scan_id])
        if hashlib.sha256(data).hexdigest() != offer.sha256:
            raise DeliveryError(f"scan {offer.scan_id}: its recording changed since it was offered")
        return memoryview(data)

    @staticmethod
    def _bytes(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise DeliveryError(f"{path}: cannot be read ({error})") from error

    def decide(
        self, offer: wire.Offer, verdict: Verdict, *, note: str = "", codes: tuple[int, ...] = (),
        timeout_s: float = 30.0, decision_id: str | None = None, decided_utc_ns: int | None = None,
    ) -> wire.Decided:  # fmt: skip
        """Write down how the decision compares with the truth; nothing is sent anywhere."""
        carried = self._truth[offer.scan_id]
        regions = self._journal.kept(offer.scan_id, "regions", [])
        self._journal.note(
            self._analyst, "training", offer.scan_id, verdict=verdict, threat=carried.threat,
            result=result_of(verdict, bool(carried.threat)), drawn=len(regions),
        )  # fmt: skip
        with self._lock:
            self._offers.pop(offer.scan_id, None)
            self._order = [scan_id for scan_id in self._order if scan_id != offer.scan_id]
        return wire.Decided(
            decision_id=decision_id or "", scan_id=offer.scan_id, durable=True, applied=True, reason="training"
        )

    def truth(self, scan_id: str) -> Carried | None:
        """Return what a scan really carries."""
        return self._truth.get(scan_id)


def result_of(verdict: str, threat: bool) -> str:
    """Return hit, miss, false_alarm or right_clear; a rescan decides nothing: `none`."""
    if verdict == "rescan":
        return "none"
    if threat:
        return "hit" if verdict == "inspect" else "miss"
    return "false_alarm" if verdict == "inspect" else "right_clear"


def figures(journal: Journal, analyst: str) -> dict[str, Any]:
    """Return how an analyst did in training: in all, by kind of threat, and by week, oldest first."""
    lines = [line for line in journal.history(kinds=("training",), limit=100_000) if line["who"] == analyst]
    lines.reverse()
    week_ns = 7 * 86_400 * 1_000_000_000
    weeks: dict[int, list[dict[str, Any]]] = {}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        weeks.setdefault(int(line["utc_ns"]) // week_ns, []).append(line)
        kinds.setdefault(line["said"]["threat"], []).append(line)
    return {
        "all": _rates(lines),
        "kinds": [{"kind": k, **_rates(v)} for k, v in sorted(kinds.items()) if k],
        "weeks": [{"from_utc_ns": str(week * week_ns), **_rates(v)} for week, v in sorted(weeks.items())],
    }


def _rates(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return counts, rates with 95 % intervals, and sensitivity d'.

    d' = z(hits) - z(false alarms), each with half a case added so that it stays finite (log-linear correction).

    Source: Green and Swets, Signal detection theory and psychophysics; Hautus 1995 for the correction; Wilson 1927.
    """
    said = [line["said"]["result"] for line in lines]
    hits, misses = said.count("hit"), said.count("miss")
    alarms, clears = said.count("false_alarm"), said.count("right_clear")
    threats, clean = hits + misses, alarms + clears
    sensitivity = None
    if threats and clean:
        sensitivity = round(Z.inv_cdf((hits + 0.5) / (threats + 1)) - Z.inv_cdf((alarms + 0.5) / (clean + 1)), 2)
    return {
        "scans": len(said), "hits": hits, "misses": misses, "false_alarms": alarms, "right_clears": clears,
        "hit_rate": _wilson(hits, threats), "false_alarm_rate": _wilson(alarms, clean), "d_prime": sensitivity,
    }  # fmt: skip


def _wilson(k: int, n: int) -> list[float] | None:
    """Return a rate with its 95 % interval: rate, low, high; None of nothing."""
    if not n:
        return None
    z, p = 1.959964, k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [round(p, 3), round(max(0.0, middle - half), 3), round(min(1.0, middle + half), 3)]
