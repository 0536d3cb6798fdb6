"""Figures of a site and of its analysts, from what was written down here: nothing has to be filled in by hand.

Source of what a site is asked for: GAO-25-107379 (scanned, flagged, decided), DHS OIG (down time with its reason).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from scanner_io import wire

from .journal import Journal
from .station import APART, Station

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


def figures(station: Station, since_utc_ns: int, now_utc_ns: int) -> dict[str, Any]:
    """Return the figures since an instant; counts of the services are of all time and say so.

    What was decided in training decides nothing: it is not among them.
    """
    journal = station.journal
    made = [
        e for e in journal.entries(limit=100_000)
        if e.made.made_utc_ns >= since_utc_ns and e.state != "undone" and e.made.address not in APART
    ]  # fmt: skip
    looks = [(e.made.made_utc_ns - e.made.opened_utc_ns) / SECOND_NS for e in made if e.made.opened_utc_ns]
    counts: Counter[str] = Counter()
    for service in station.services.values():
        counts.update(service.counts)
    recorded = counts["recorded"]
    return {
        "since_utc_ns": str(since_utc_ns),
        "now_utc_ns": str(now_utc_ns),
        "services": {
            "recorded": recorded, "flagged": recorded - counts["CLEAR"], "offered": counts["offered"],
            "decided": counts["decided"], "waiting": counts["pending"] + counts["leased"] + counts["held"],
        },
        "decided": len(made),
        "by_verdict": dict(Counter(e.made.verdict for e in made)),
        "by_state": dict(Counter(e.state for e in made)),
        "by_code": {str(k): v for k, v in sorted(Counter(c for e in made for c in e.made.codes).items())},
        "by_analyst": dict(Counter(e.made.analyst for e in made)),
        "time_to_decision_s": _quantiles(looks),
        "hours": _hours([e.made.made_utc_ns for e in made], now_utc_ns),
        "findings": _findings(journal, made),
        "down": down_times(journal, since_utc_ns, now_utc_ns),
    }  # fmt: skip


def _quantiles(seconds: list[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "p95": None, "n": 0}
    p50, p95 = np.percentile(seconds, (50, 95))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "n": len(seconds)}


def _hours(instants_ns: list[int], now_utc_ns: int) -> list[int]:
    """Return decisions per hour of the last 24, oldest first."""
    ago = [(now_utc_ns - t) // HOUR_NS for t in instants_ns]
    return [ago.count(h) for h in range(23, -1, -1)]


def _findings(journal: Journal, made: list[Any]) -> list[dict[str, Any]]:
    """Return per kind of finding how the analysts decided the scans that had one: the agreement with each rule."""
    table: dict[str, Counter[str]] = {}
    for entry in made:
        blob = journal.seen_offer(entry.made.scan_id)
        if blob is None:
            continue
        offer = msgspec.json.decode(blob, type=wire.Offer)
        for kind in {f.kind for f in offer.result.findings if f.tier != "note"} or {"(none)"}:
            table.setdefault(kind, Counter())[entry.made.verdict] += 1
    return [
        {"kind": kind, "scans": verdicts.total(), **{v: verdicts[v] for v in ("clear", "inspect", "rescan")}}
        for kind, verdicts in sorted(table.items(), key=lambda item: -item[1].total())
    ]


def down_times(journal: Journal, since_utc_ns: int, now_utc_ns: int) -> list[dict[str, Any]]:
    """Return when which service could not be reached, newest first, with the reason that was given."""
    lines = journal.history(kinds=("disconnected", "connected", "down_reason"), since_utc_ns=since_utc_ns, limit=5000)
    begun: dict[str, dict[str, Any]] = {}
    periods: list[dict[str, Any]] = []
    for line in reversed(lines):
        address = line["said"].get("address", "")
        if line["kind"] == "disconnected":
            begun[address] = {"address": address, "from_utc_ns": line["utc_ns"], "to_utc_ns": None, "reason": ""}
            periods.append(begun[address])
        elif line["kind"] == "connected" and address in begun:
            begun.pop(address)["to_utc_ns"] = line["utc_ns"]
        elif line["kind"] == "down_reason":
            for period in periods:
                if period["address"] == address and period["from_utc_ns"] == line["said"].get("from_utc_ns"):
                    period["reason"] = line["said"].get("reason", "")
    for period in periods:
        end = int(period["to_utc_ns"]) if period["to_utc_ns"] else now_utc_ns
        period["seconds"] = round((end - int(period["from_utc_ns"])) / SECOND_NS, 1)
    return periods[::-1]


COLUMNS = (
    "decided_utc", "scan_id", "lane_service", "analyst", "outcome", "verdict", "codes", "note", "state", "reason",
    "opened_s_before", "after_passage_s", "sha256",
)  # fmt: skip


def decisions_csv(journal: Journal) -> str:
    """Return every decision made here as CSV, oldest first; a text that a spreadsheet would run is made a text."""
    from scanner_io.recording import iso

    room = io.StringIO()
    table = csv.writer(room)
    table.writerow(COLUMNS)
    for entry in journal.entries(limit=1_000_000):
        m = entry.made
        opened = round((m.made_utc_ns - m.opened_utc_ns) / SECOND_NS, 1) if m.opened_utc_ns else ""
        passage = round((m.made_utc_ns - m.start_utc_ns) / SECOND_NS, 1) if m.start_utc_ns else ""
        values = (
            iso(m.made_utc_ns), m.scan_id, m.address, m.analyst, m.outcome, m.verdict, " ".join(map(str, m.codes)),
            m.note, entry.state, entry.reason, opened, passage, m.sha256,
        )  # fmt: skip
        table.writerow([f"'{v}" if str(v)[:1] in "=+-@\t\r" and v != "" else v for v in values])
    return room.getvalue()
