"""What a site did in a time: `scanlane report --from … --to …`, per lane, each rate with its counts and interval.

Everything is read from the outbox and its chain of events. A lane counts as up from the moment it was ready until its
process died, the service stopped, or, where the service ended without a word, until the last thing it wrote down.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scanner_io.decision_codes import FOUND, NEGATIVE
from scanner_io.errors import StorageError
from scanner_io.model import Opinion
from triage.analysis.shares import share, words

from .risk_archive import Passage, passages
from .store import Place, reading

HOUR_NS, SECOND_NS = 3600 * 10**9, 10**9

LIMITS = (
    "Flagged is every scan that an analyst was asked about. Of flags that the profile's promise counts, only those of "
    "scans with a known look are in the promise's rate; it holds for innocent scans, and finds among them raise it.",
    "The hit rate is that of scans sent on to inspection whose decision tells by a code what came of it.",
    "Time to decision is from the scan's entry into the outbox to the commit of the decision in force.",
    "Availability counts from the first time that a lane of the period is known to be ready.",
)


class Event(NamedTuple):
    """What the chain of events says of lanes and devices."""

    utc_ns: int
    kind: str
    who: str
    text: str


class Down(NamedTuple):
    """A time in which a lane, or a device of it, was not there. end_ns : None: it has not come back"""

    what: str
    first_ns: int
    end_ns: int | None
    reason: str

    def inside(self, first_ns: int, end_ns: int) -> int:
        """Return how many nanoseconds of the period it took."""
        return max(0, min(end_ns, end_ns if self.end_ns is None else self.end_ns) - max(first_ns, self.first_ns))


class Watch(NamedTuple):
    """What is known of lanes: since when each is watched, and when it was down; and of devices."""

    since_ns: dict[str, int]
    lanes: list[Down]
    devices: list[Down]


def watched(events: Iterable[Event]) -> Watch:
    """Return when lanes and devices were down, by the events in their order."""
    since: dict[str, int] = {}
    down: dict[str, tuple[int, str]] = {}
    up: dict[str, str] = {}  # lane -> the service it is of, empty where there is one
    faults: dict[str, tuple[int, str]] = {}
    idle: dict[str, tuple[int, str]] = {}  # lanes whose process runs and takes nothing in
    lanes, devices = [], []

    def resumed(lane: str, at_ns: int) -> None:
        if lane in idle:
            first_ns, reason = idle.pop(lane)
            lanes.append(Down(lane, first_ns, at_ns, reason))

    last_ns = 0
    for event in events:
        match event.kind:
            case "service_started":  # where it never said that it stopped
                for lane in _ended(up, down, event.who, last_ns, "the service ended without a word"):
                    resumed(lane, last_ns)
            case "service_stopped":
                for lane in _ended(up, down, event.who, event.utc_ns, "the service was stopped"):
                    resumed(lane, event.utc_ns)
            case "hub_lost":
                for lane in _ended(up, down, event.who, event.utc_ns, "its service was lost"):
                    resumed(lane, event.utc_ns)
            case "lane_down":
                resumed(event.who, event.utc_ns)
                idle[event.who] = (event.utc_ns, event.text)
            case "lane_up":
                resumed(event.who, event.utc_ns)
            case "lane_ready":
                since.setdefault(event.who, event.utc_ns)
                resumed(event.who, event.utc_ns)
                for what in [w for w in faults if w.partition(" ")[0] == event.who]:  # nobody is there to take it back
                    first_ns, began = faults.pop(what)
                    devices.append(Down(what, first_ns, event.utc_ns, began))
                if event.who in down:
                    first_ns, reason = down.pop(event.who)
                    lanes.append(Down(event.who, first_ns, event.utc_ns, reason))
                up[event.who] = event.text.partition(" of ")[2]
            case "lane_died":
                resumed(event.who, event.utc_ns)
                if up.pop(event.who, None) is not None:
                    down[event.who] = (event.utc_ns, f"its process died: {event.text}")
            case "lane_finished":
                up.pop(event.who, None)
            case "health":
                component, _, rest = event.text.partition(" ")
                state, _, reason = rest.partition(" at ")
                what = f"{event.who} {component}"
                if what in faults:
                    first_ns, began = faults.pop(what)
                    devices.append(Down(what, first_ns, event.utc_ns, began))
                if state != "ok":
                    faults[what] = (event.utc_ns, f"{state}: {reason.partition(': ')[2]}")
        last_ns = event.utc_ns
    lanes += [Down(lane, first_ns, None, reason) for lane, (first_ns, reason) in {**idle, **down}.items()]
    devices += [Down(what, first_ns, None, reason) for what, (first_ns, reason) in faults.items()]
    return Watch(since, lanes, devices)


def _ended(up: dict[str, str], down: dict[str, tuple[int, str]], service: str, at_ns: int, reason: str) -> list[str]:
    """Take the lanes of a service for down; return them."""
    lanes = [name for name, of in up.items() if of == service]
    for lane in lanes:
        del up[lane]
        down[lane] = (at_ns, reason)
    return lanes


def report(
    place: Place, first_ns: int, end_ns: int, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of the passages that came in from `first_ns` on and before `end_ns`, and of that time.

    Raises StorageError if the outbox cannot be read, or has nothing of that time.
    """
    period = (first_ns, end_ns)
    with reading(place) as reader:
        # of other events only the one before a start counts: until then a service that never said its end was there
        rows = reader.rows(
            "SELECT utc_ns, kind, who, text FROM events WHERE kind IN ('service_started', 'service_stopped', "
            "'lane_ready', 'lane_died', 'lane_finished', 'lane_down', 'lane_up', 'health', 'hub_lost') OR seq IN "
            "(SELECT seq - 1 FROM events WHERE kind='service_started') ORDER BY seq"
        )
        watch = watched(Event(int(r[0]), str(r[1]), str(r[2]), str(r[3])) for r in rows)
        query = (
            "SELECT scan_id, committed_utc_ns FROM decisions JOIN scans USING (scan_id) "
            "WHERE applied<>0 AND added_utc_ns>=? AND added_utc_ns<?"
        )
        committed = {str(scan_id): int(at_ns) for scan_id, at_ns in reader.rows(query, period)}
        query = "SELECT opinion FROM opinions JOIN scans USING (scan_id) WHERE added_utc_ns>=? AND added_utc_ns<?"
        opinions = [msgspec.json.decode(blob, type=Opinion) for (blob,) in reader.rows(query, period)]
    found: dict[str, list[Passage]] = {}
    for passage in passages(place, period, history=False):
        progress()
        found.setdefault(passage.lane, []).append(passage)
    names = sorted({*found, *(n for n, since in watch.since_ns.items() if since < end_ns)})
    if not names:
        raise StorageError(f"{place}: holds nothing from {_iso(first_ns)} to {_iso(end_ns)}; see --from and --to")
    verdicts = {p.scan_id: p.verdict for each in found.values() for p in each}
    second = [o for o in opinions if verdicts.get(o.scan_id) and o.verdict is not None]
    every = [p for each in found.values() for p in each]
    return {
        "from": _iso(first_ns), "to": _iso(end_ns), "simulated": sum(p.simulated for p in every),
        "lanes": {
            name: {
                **_figures(found.get(name, []), committed, (end_ns - first_ns) / HOUR_NS),
                **_availability(name, watch, first_ns, end_ns),
            }
            for name in names
        },
        "all": _figures(every, committed, (end_ns - first_ns) / HOUR_NS),
        "disagreements": share(sum(o.verdict != verdicts[o.scan_id] for o in second), len(second)),
        "limits": list(LIMITS),
    }  # fmt: skip


def _figures(found: list[Passage], committed: dict[str, int], hours: float) -> dict[str, Any]:
    """Return the figures of some passages."""
    flagged = [p for p in found if p.result.outcome != "CLEAR"]
    decided = [p for p in flagged if p.verdict]
    standings = [p.result.standing for p in found if p.result.standing and not p.result.standing.unknown]
    levels = {s.level for s in standings}
    told = [p for p in decided if p.verdict == "inspect" and set(p.codes) & (FOUND | NEGATIVE)]
    waits = [(committed[p.scan_id] - p.at_utc_ns) / SECOND_NS for p in decided if p.scan_id in committed]
    busiest = Counter(p.at_utc_ns // HOUR_NS for p in found)
    return {
        "scans": len(found), "simulated": sum(p.simulated for p in found),
        "outcomes": dict(sorted(Counter(p.result.outcome for p in found).items())),
        "flagged": share(len(flagged), len(found)),
        "findings": dict(Counter(f.kind for p in found for f in p.result.findings).most_common()),
        "scans_per_hour": round(len(found) / hours, 3), "busiest_hour": max(busiest.values(), default=0),
        "promise": {
            "promised": levels.pop() if len(levels) == 1 else None,
            "flagged": share(sum(s.p_value <= s.level for s in standings), len(standings)),
        },
        "decisions": dict(sorted(Counter(p.verdict for p in decided).items())),
        "undecided": len(flagged) - len(decided),
        "hits": share(sum(bool(set(p.codes) & FOUND) for p in told), len(told)),
        "time_to_decision_s": {
            "count": len(waits),
            **{n: round(float(np.quantile(waits, q)), 1) if waits else None for n, q in (("p50", 0.5), ("p95", 0.95))},
        },
    }  # fmt: skip


def _availability(lane: str, watch: Watch, first_ns: int, end_ns: int) -> dict[str, Any]:
    """Return how much of the period a lane was up, and why not."""
    since = watch.since_ns.get(lane)
    begun_ns = end_ns if since is None else max(first_ns, since)
    away = [d for d in watch.lanes if d.what == lane and d.inside(first_ns, end_ns)]
    devices = [d for d in watch.devices if d.what.split(" ")[0] == lane and d.inside(first_ns, end_ns)]
    observed = max(0, end_ns - begun_ns)
    lost = sum(d.inside(begun_ns, end_ns) for d in away)
    return {
        "observed_h": round(observed / HOUR_NS, 3), "down_h": round(lost / HOUR_NS, 3),
        "availability": round(1 - lost / observed, 5) if observed else None,
        "downtime": [_row(d, first_ns, end_ns) for d in away],
        "device_faults": [_row(d, first_ns, end_ns) for d in devices],
    }  # fmt: skip


def _row(down: Down, first_ns: int, end_ns: int) -> dict[str, Any]:
    return {
        "what": down.what, "from": _iso(down.first_ns), "to": None if down.end_ns is None else _iso(down.end_ns),
        "inside_min": round(down.inside(first_ns, end_ns) / SECOND_NS / 60, 2), "reason": down.reason,
    }  # fmt: skip


def _iso(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns / SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(told: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the report as rows of words: a name, then a cell for each lane and one for all of them."""
    columns = [*told["lanes"].values(), told["all"]]

    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> tuple[str, list[str]]:
        return name, [cell(one) for one in columns]

    return [
        row("scans", lambda c: str(c["scans"])),
        row("of them simulated", lambda c: str(c["simulated"])),
        row("scans per hour", lambda c: f"{c['scans_per_hour']:g}"),
        row("in the busiest hour", lambda c: str(c["busiest_hour"])),
        row("flagged", lambda c: words(c["flagged"])),
        row("promised at most", lambda c: _percent(c["promise"]["promised"], "no profile")),
        row("flagged of what is promised", lambda c: words(c["promise"]["flagged"])),
        row("sent on to inspection", lambda c: str(c["decisions"].get("inspect", 0))),
        row("hits of those told", lambda c: words(c["hits"])),
        row("waiting for a decision", lambda c: str(c["undecided"])),
        row("time to decision, median", lambda c: _seconds(c["time_to_decision_s"]["p50"])),
        row("time to decision, 95 %", lambda c: _seconds(c["time_to_decision_s"]["p95"])),
        row("hours watched", lambda c: f"{c['observed_h']:g}" if "observed_h" in c else ""),
        row("hours down", lambda c: f"{c['down_h']:g}" if "down_h" in c else ""),
        row("availability", lambda c: _percent(c.get("availability"), "")),
    ]  # fmt: skip


def _percent(value: float | None, without: str) -> str:
    return without if value is None else f"{value:.2%}"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"


def as_csv(told: dict[str, Any]) -> str:
    """Return the report as CSV: one row per lane and one for all; shares as counts."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = [
        "lane", "from", "to", "scans", "simulated", "scans_per_hour", "busiest_hour", "flagged", "promised",
        "promise_flagged", "promise_of", "inspect", "clear", "rescan", "undecided", "hits", "hits_of", "decision_p50_s",
        "decision_p95_s", "observed_h", "down_h", "availability",
    ]  # fmt: skip
    writer.writerow(names)
    for lane, c in [*told["lanes"].items(), ("all", told["all"])]:
        writer.writerow([
            lane, told["from"], told["to"], c["scans"], c["simulated"], c["scans_per_hour"], c["busiest_hour"],
            c["flagged"]["hits"], c["promise"]["promised"], c["promise"]["flagged"]["hits"],
            c["promise"]["flagged"]["of"], *(c["decisions"].get(v, 0) for v in ("inspect", "clear", "rescan")),
            c["undecided"], c["hits"]["hits"], c["hits"]["of"], c["time_to_decision_s"]["p50"],
            c["time_to_decision_s"]["p95"], c.get("observed_h"), c.get("down_h"), c.get("availability"),
        ])  # fmt: skip
    return out.getvalue()


def html(told: dict[str, Any]) -> str:
    """Return the report as one page without anything outside it."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in (*told["lanes"], "all"))
    rows = "\n".join(
        f"<tr><th scope=row>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells in table(told)
    )
    away = [d for lane in told["lanes"].values() for d in (*lane["downtime"], *lane["device_faults"])]
    downtime = "\n".join(
        f"<tr><td>{escape(d['what'])}</td><td>{d['from']}</td><td>{d['to'] or 'still'}</td>"
        f"<td class=n>{d['inside_min']:g}</td><td>{escape(d['reason'])}</td></tr>"
        for d in sorted(away, key=lambda d: str(d["from"]))
    )
    return PAGE.format(
        begin=told["from"], end=told["to"], head=head, rows=rows,
        simulated=f"<p class=warn>{told['simulated']} of the scans are simulated.</p>" if told["simulated"] else "",
        downtime=downtime or "<tr><td colspan=5>none</td></tr>", disagreements=escape(words(told["disagreements"])),
        limits="\n".join(f"<li>{escape(line)}</li>" for line in told["limits"]),
    )  # fmt: skip


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><title>Operations {begin} to {end}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b2733 }}
table {{ border-collapse: collapse; margin: 1rem 0; width: 100% }}
th, td {{ border-bottom: 1px solid #d5dbe1; padding: .35rem .6rem; text-align: left; vertical-align: top }}
td.n {{ text-align: right }} .warn {{ background: #fff3d6; padding: .5rem .8rem }}
</style>
<h1>Operations</h1>
<p>{begin} to {end}, times in UTC.</p>
{simulated}
<table><thead><tr><td></td>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<h2>Down</h2>
<table><thead><tr><th>what</th><th>from</th><th>to</th><th>minutes of the period</th><th>reason</th></tr></thead><tbody>
{downtime}
</tbody></table>
<h2>Second opinions</h2>
<p>Other than the decision: {disagreements}.</p>
<h2>How to read this</h2>
<ul>
{limits}
</ul>
</html>
"""
