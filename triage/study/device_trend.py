"""How a lane's detector and source have changed, from the recordings it has made: one row per recording, a trend each.

    dark.E    counts            median over good channels of the dark reference kept with the scan
    air.E     counts            the same of the air reference, less dark: source output times gain
    output.E  share             open beam in the scan over the air reference: what the source lost since that was taken
    stripes.E percent           spread over channels of open beam over the air reference, less a running median
    bad       channels          marked dead, stuck or noisy

E is the energy's name. Open beam are columns whose median channel is above 0.8 of the air reference; without twenty of
them, `output` and `stripes` of a scan are None. Grey pictures that a vendor has windowed have no counts: they are
passed over and counted.

A trend is told as a change where the slope differs from none (Kendall's tau over daily medians, two-sided, p <= 0.01
divided by the number of series looked at) and its size over the whole time is beyond the limit of its kind. Channels
that are bad now and were not at first are named whatever the slope.

Source: Sen, Estimates of the regression coefficient based on Kendall's tau (1968).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scanner_io import recording
from scanner_io.errors import DataError, StorageError
from scanner_io.model import Radiograph, Scan

OPEN, OPEN_COLUMNS = 0.8, 20
LEVEL = 0.01
LIMITS = {"dark": 0.05, "air": 0.10, "output": 0.10, "stripes": 0.50, "bad": 0.01}
"""Change over the whole time, as a share of the first value; of `bad`, of all channels."""
FEWEST_DAYS = 4
DAY_NS = 24 * 3600 * 10**9


def figures(scan: Scan) -> dict[str, Any] | None:
    """Return the figures of one scan; None if it has no image of raw counts."""
    image = scan.radiograph
    if image is None or image.detector.state != "raw":
        return None
    good = ~image.detector.bad_channels
    values: dict[str, float | None] = {"bad": float((~good).sum())}
    for number, energy in enumerate(image.detector.energies if good.any() else ()):
        dark, air = image.detector.dark[number][good], image.detector.air[number][good]
        values[f"dark.{energy}"] = float(np.median(dark))
        values[f"air.{energy}"] = float(np.median(air - dark))
        values[f"output.{energy}"], values[f"stripes.{energy}"] = _beam(image, number, good)
    return {"bad_channels": np.flatnonzero(~good).tolist(), "channels": image.detector.channels, "values": values}


def _beam(image: Radiograph, number: int, good: np.ndarray[Any, Any]) -> tuple[float | None, float | None]:
    """Return output and stripes of one energy."""
    dark, air = image.detector.dark[number][good], image.detector.air[number][good]
    span = np.maximum(air - dark, 1.0)
    share = (image.counts[number][:, good] - dark) / span
    is_open = np.median(share, axis=1) > OPEN
    if is_open.sum() < OPEN_COLUMNS:
        return None, None
    level = share[is_open].mean(axis=0)
    smooth = np.array([np.median(level[max(0, i - 4) : i + 5]) for i in range(len(level))])
    return float(np.median(level)), float(100 * 1.4826 * np.median(np.abs(level - smooth)))


def device_trend(
    archive: Iterable[Path], most: int = 2000, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:  # fmt: skip
    """Return the trends of every lane in folders of recordings, JSON-ready.

    most : recordings that are read, evenly over all of them

    Raises StorageError where there is none. A recording that cannot be read is named in `unreadable`.
    """
    files = "*" + recording.SUFFIX
    paths = sorted({p for place in archive for p in ([place] if place.is_file() else place.rglob(files))})
    if not paths:
        raise StorageError("no recording there; give the folder `recordings` of a state_dir, or files")
    read = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))]
    lanes: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    unreadable, without, simulated = [], 0, 0
    for path in read:
        try:
            scan = recording.read(path).scan
        except DataError as error:
            unreadable.append(str(error))
            continue
        finally:
            progress()
        found = figures(scan)
        if found is None:
            without += 1
            continue
        simulated += scan.simulated
        lanes[scan.lane].append((scan.start_utc_ns, found))
    return {
        "recordings": len(paths), "read": len(read), "unreadable": unreadable, "without_counts": without,
        "simulated": simulated, "lanes": {name: lane_trend(rows) for name, rows in sorted(lanes.items())},
    }  # fmt: skip


def lane_trend(rows: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return the trends of one lane. rows : start of each scan, UTC ns, and its `figures`"""
    rows = sorted(rows, key=lambda row: row[0])
    names = sorted({name for _, found in rows for name in found["values"]})
    first, last = rows[0][1], rows[-1][1]
    new = sorted(set(last["bad_channels"]) - set(first["bad_channels"]))
    told = {name: _trend(name, _daily(rows, name), len(names), first.get("channels", 1)) for name in names}
    changes = [t["words"] for t in told.values() if t["changed"]]
    changes += [f"{len(new)} channels are bad that were not: {', '.join(map(str, new[:20]))}"] if new else []
    return {"scans": len(rows), "new_bad_channels": new, "changes": changes, "series": told}


def _daily(rows: list[tuple[int, dict[str, Any]]], name: str) -> list[tuple[int, float]]:
    """Return day number and median of every day that has a value."""
    days: dict[int, list[float]] = defaultdict(list)
    for at_ns, found in rows:
        if (value := found["values"].get(name)) is not None:
            days[at_ns // DAY_NS].append(value)
    return [(day, float(np.median(values))) for day, values in sorted(days.items())]


def _trend(name: str, daily: list[tuple[int, float]], looked_at: int, channels: int) -> dict[str, Any]:
    """Return slope, p-value and words of one series."""
    points = [[_day(day), round(value, 5)] for day, value in daily]
    told: dict[str, Any] = {"daily": points, "changed": False, "per_30_days": None, "p_value": None, "words": ""}
    if len(daily) < FEWEST_DAYS:
        return told | {"words": f"{name}: {len(daily)} days, fewer than the {FEWEST_DAYS} that a trend needs"}
    x, y = np.array([d for d, _ in daily], float), np.array([v for _, v in daily])
    if np.ptp(y) == 0:
        return told | {"per_30_days": 0.0, "p_value": 1.0, "words": f"{name}: {y[0]:g} on every day"}
    slope = float(stats.theilslopes(y, x)[0])
    p_value = float(stats.kendalltau(x, y).pvalue)
    kind = name.partition(".")[0]
    scale = channels if kind == "bad" else max(abs(float(np.median(y[:3]))), 1e-9)
    change = slope * (x[-1] - x[0]) / scale
    changed = p_value <= LEVEL / looked_at and abs(change) >= LIMITS[kind]
    words = f"{name}: {change:+.1%} in {x[-1] - x[0]:.0f} days, limit {LIMITS[kind]:.0%}, p {p_value:.2g}"
    return told | {
        "changed": bool(changed), "per_30_days": round(30 * slope, 6), "p_value": p_value, "change": round(change, 5),
        "words": words,
    }  # fmt: skip


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_NS / 1e9, UTC).strftime("%Y-%m-%d")


def html(told: dict[str, Any]) -> str:
    """Return the trends as one page without anything outside it."""
    parts = [f"<p class=warn>{told['simulated']} of the scans are simulated.</p>"] if told["simulated"] else []
    for name, lane in told["lanes"].items():
        changes = "".join(f"<li class=warn>{escape(w)}</li>" for w in lane["changes"]) or "<li>no change is told</li>"
        parts.append(f"<h2>{escape(name)}</h2><p>{lane['scans']} scans</p><ul>{changes}</ul>")
        parts += [f"<p>{escape(s['words'])}</p>{_curve(s['daily'])}" for s in lane["series"].values()]
    return PAGE.format(body="\n".join(parts), read=told["read"], recordings=told["recordings"])


def _curve(daily: list[list[Any]]) -> str:
    """Return a series as SVG: the axis from its smallest to its largest value."""
    values = [value for _, value in daily]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    step, scale = 580 / (len(values) - 1), 80 / (high - low or 1)
    points = " ".join(f"{10 + step * i:.1f},{90 - scale * (v - low):.1f}" for i, v in enumerate(values))
    return (
        f"<svg viewBox='0 0 700 100' role=img><polyline points='{points}' fill=none stroke='#1b5e8a' stroke-width=2 />"
        f"<text x=600 y=15>{high:g}</text><text x=600 y=95>{low:g}</text></svg>"
    )


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><title>Device trends</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem; color: #1b2733 }}
svg {{ width: 100%; background: #f5f7f9 }} text {{ font-size: 12px }} .warn {{ background: #fff3d6 }}
</style>
<h1>Device trends</h1>
<p>{read} of {recordings} recordings were read. Values are daily medians, from their smallest to their largest.</p>
{body}
</html>
"""
