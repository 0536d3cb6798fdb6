"""What a browser is told of an opened scan: image, findings, portal series, papers against picture; plain values."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from scanner_io import wire
from scanner_io.model import (
    NANOSECONDS,
    Box,
    Declaration,
    Intervals,
    PortalRecord,
    PortalSettings,
    Radiograph,
    Scan,
    TriageResult,
)

from .images import MATERIAL_T, OPAQUE_T, TILE, Pyramid, common_ratio, materials, upright_box

ASSUMED = PortalSettings()
"""Settings of a portal that never told its own; whatever is drawn by them says so."""
KNOTS = 64
"""Pairs of column and second that place the portal's intervals under the image."""


def energy_label(name: str, index: int, count: int) -> str:
    """Return what an energy is by its place: low before high; a single one by its name."""
    return ("low", "high")[index] if count == 2 else name


def image_view(
    radiograph: Radiograph, pyramids: tuple[Pyramid, ...], start_utc_ns: int, container: dict[str, int] | None
) -> dict[str, Any]:
    """Return size, energies, value scale, window presets and material classes of a radiograph.

    container : its box in upright pixels, where one was found
    """
    detector = radiograph.detector
    energies: list[dict[str, Any]] = []
    for index, (name, pyramid) in enumerate(zip(detector.energies, pyramids, strict=True)):
        energies.append(
            {
                "name": name,
                "label": energy_label(name, index, len(pyramids)),
                "percentiles": pyramid.percentiles(),
                "histogram": pyramid.histogram(),
            }
        )
    shown, white = energies[-1], pyramids[-1].white
    return {
        "columns": radiograph.columns,
        "rows": detector.channels,
        "tile": TILE,
        "levels": pyramids[-1].levels,
        "energies": energies,
        "default_energy": shown["name"],
        "value": {
            "kind": "transmission" if detector.state == "raw" else "grey",
            "white": white,
            "saturation": detector.saturation_value,
            "opaque_below": round(OPAQUE_T * white),
        },
        "presets": presets(shown["percentiles"], white),
        "material": material_view(radiograph, pyramids, container),
        "column_pitch_mm": detector.column_pitch_mm,
        "channel_pitch_mm": detector.channel_pitch_mm,
        "column_seconds": column_seconds(radiograph, start_utc_ns),
        "bad_rows": _bad_rows(radiograph),
    }


def no_image() -> dict[str, Any]:
    """Return the same for a scan without a radiograph."""
    return {
        "columns": 0, "rows": 0, "tile": TILE, "levels": 0, "energies": [], "default_energy": None,
        "value": {"kind": "none", "white": 1, "saturation": 1}, "presets": [], "material": None,
        "column_pitch_mm": None, "channel_pitch_mm": None, "column_seconds": [], "bad_rows": [],
    }  # fmt: skip


def presets(percentiles: dict[str, int], white: int) -> list[dict[str, Any]]:
    """Return the four windows on the number keys, in values of the image."""
    low, high = percentiles["0.5"], percentiles["99.5"]
    return [
        {"name": "full", "low": 0, "high": white},
        {"name": "auto", "low": low, "high": max(high, low + 1)},
        {"name": "dense", "low": 0, "high": max(1, round(white * 0.25))},
        {"name": "light", "low": round(white * 0.4), "high": white},
    ]


def material_view(
    radiograph: Radiograph, pyramids: tuple[Pyramid, ...], container: dict[str, int] | None
) -> dict[str, Any] | None:
    """Return the classes of the material view, None without two energies of raw counts or anything to measure by."""
    detector = radiograph.detector
    if len(detector.energies) != 2 or detector.state != "raw":
        return None
    common = common_ratio(pyramids[0], pyramids[1], container)
    if common is None:
        return None
    return {
        "calibrated": False,
        "note": "by the ratio of two attenuations beside the commonest, the container's walls: a guide to the eye",
        "energies": list(detector.energies),
        "t_min": MATERIAL_T[0],
        "t_max": MATERIAL_T[1],
        "classes": [msgspec.to_builtins(m) for m in materials(common, walls=container is not None)],
    }


def column_seconds(radiograph: Radiograph, start_utc_ns: int) -> list[list[float]]:
    """Return knots [column, seconds since `start_utc_ns`] between which columns are as good as even in time."""
    columns = np.unique(np.linspace(0, radiograph.columns - 1, min(KNOTS, radiograph.columns)).astype(np.int64))
    seconds = (radiograph.column_utc_ns[columns] - start_utc_ns) / NANOSECONDS
    return [[int(c), round(float(s), 4)] for c, s in zip(columns, seconds, strict=True)]


def _bad_rows(radiograph: Radiograph) -> list[int]:
    rows = np.flatnonzero(radiograph.detector.bad_channels)
    if radiograph.detector.first_channel == "bottom":
        rows = radiograph.detector.channels - 1 - rows[::-1]
    return [int(r) for r in rows]


def findings_view(offer: wire.Offer, radiograph: Radiograph | None) -> list[dict[str, Any]]:
    """Return the findings with upright boxes, numbered as on the picture."""
    return [
        {
            "index": index, "kind": f.kind, "tier": f.tier, "reason": f.reason, "score": f.score, "p_value": f.p_value,
            "box": upright_box(f.where, radiograph) if isinstance(f.where, Box) and radiograph is not None else None,
            "intervals": [f.where.first, f.where.end] if isinstance(f.where, Intervals) else None,
        }
        for index, f in enumerate(offer.result.findings, start=1)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ portal


def portal_view(record: PortalRecord, start_utc_ns: int) -> dict[str, Any]:
    """Return the series of a portal passage, per interval, against background and threshold."""
    settings = record.settings or ASSUMED
    gamma = record.gamma.sum(axis=1)
    background = _background(record.gamma_background, record.gamma_interval_s)
    window = max(1, settings.gamma_intervals)
    neutron_start_ns = record.neutron_start_utc_ns or record.gamma_start_utc_ns
    neutron_background = _background(record.neutron_background, record.neutron_interval_s)
    return {
        "interval_s": record.gamma_interval_s,
        "start_s": (record.gamma_start_utc_ns - start_utc_ns) / NANOSECONDS,
        "gamma": [int(n) for n in gamma],
        "gamma_detectors": [[int(n) for n in series] for series in record.gamma.T],
        "background": background,
        "background_sigma": None if background is None else math.sqrt(background),
        "nsigma": settings.nsigma,
        "threshold": threshold(background, settings.nsigma, window),
        "window_intervals": window,
        "alarms": _alarms(record.gamma_alarm, "gamma alarm of the portal"),
        "windows": _windows(record),
        "neutron": {
            "interval_s": record.neutron_interval_s,
            "start_s": (neutron_start_ns - start_utc_ns) / NANOSECONDS,
            "counts": [int(n) for n in record.neutron.sum(axis=1)],
            "background": neutron_background,
            "threshold": None,
            "alarms": _alarms(record.neutron_alarm, "neutron alarm of the portal"),
        }
        if record.neutron.size
        else None,
        "assumed": record.settings is None,
        "speed_kmh": record.speed_kmh,
        "faults": list(record.faults),
        "end_reason": record.end_reason,
    }


def add_findings(view: dict[str, Any], findings: list[dict[str, Any]]) -> None:
    """Mark in a portal's series where the judgement found something; a note is no mark."""
    for finding in findings:
        if finding["intervals"] is None or finding["tier"] == "note":
            continue
        neutron = finding["kind"].startswith("neutron")
        series = view["neutron"] if neutron else view
        if series is not None:
            first, end = finding["intervals"]
            series["alarms"].append(
                {"first": first, "end": end, "who": "judgement", "tier": finding["tier"], "text": finding["reason"]}
            )


def _background(per_detector: Any, interval_s: float) -> float | None:
    """Return counts per interval of all detectors together, None where none was seen."""
    if per_detector is None or float(per_detector.sum()) <= 0:
        return None
    return float(per_detector.sum()) * interval_s


def threshold(background: float | None, nsigma: float, window: int) -> float | None:
    """Return the mean counts per interval of a window at which all detectors together alarm.

    Source: the vendor's rule, (S - B t) / sqrt(B t) >= nsigma for S the counts of `window` intervals.
    """
    if background is None:
        return None
    return (background * window + nsigma * math.sqrt(background * window)) / window


def _alarms(flags: Any, text: str) -> list[dict[str, Any]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [{"first": int(a), "end": int(b), "who": "vendor", "text": text} for a, b in edges.reshape(-1, 2)]


def _windows(record: PortalRecord) -> dict[str, Any] | None:
    """Return each energy window's share of the counts per interval, and that of the background."""
    windows, background = record.gamma_windows, record.gamma_windows_background
    if windows is None:
        return None
    counts = windows.sum(axis=1) if windows.ndim == 3 else windows
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    before = None
    if background is not None:
        rates = background.sum(axis=0) if background.ndim == 2 else background
        before = [round(float(r), 4) for r in rates / max(float(rates.sum()), 1e-9)]
    return {"ratios": [[round(float(r), 4) for r in series] for series in shares.T], "background": before}


# ------------------------------------------------------------------------------------------- papers against picture


def declared_view(scan: Scan, result: TriageResult, declaration: Declaration | None) -> list[dict[str, Any]]:
    """Return lines of what was declared beside what was seen, the join of both first.

    state : agrees, differs, open (nothing to compare with). Texts are those of the judgement; labels are the page's.
    """
    lines = joined_view(scan, result, declaration)
    if declaration is None:
        return lines
    about = {f.kind: f.reason for f in result.findings}

    def line(label: str, declared: str, seen: str, *kinds: str, can_tell: bool) -> None:
        found = [about[kind] for kind in kinds if kind in about]
        state = "differs" if found else "agrees" if can_tell else "open"
        lines.append({"label": label, "declared": declared, "seen": seen, "state": state, "text": "; ".join(found)})

    says_empty = declaration.declared_empty
    if says_empty is None and declaration.hs_codes:
        says_empty = False
    line(
        "load", "" if says_empty is None else "empty" if says_empty else "loaded", result.load,
        "declared_empty_but_loaded", "declared_loaded_but_empty", "declared_empty_holds_something",
        can_tell=says_empty is not None and result.load != "unknown",
    )  # fmt: skip
    standing = result.standing
    line(
        "goods", declaration.goods or ", ".join(declaration.hs_codes), standing.cell[0] if standing else "",
        "differs_from_declared", can_tell=standing is not None and "differs_from_declared" in standing.scores,
    )  # fmt: skip
    weight = declaration.gross_weight_kg
    mass = next((f for f in result.findings if f.kind == "mass"), None)
    line(
        "weight", "" if weight is None else f"{weight / 1000:.1f} t", "" if mass is None else mass.reason,
        "mass_differs", can_tell=mass is not None and weight is not None,
    )  # fmt: skip
    portal = scan.portal
    line(
        "radiation", about.get("goods_explain", ""),
        "" if portal is None else "gamma alarm" if result.gamma_alarm else "no gamma alarm",
        "goods_do_not_explain", can_tell="goods_explain" in about,
    )  # fmt: skip
    return lines


def joined_view(scan: Scan, result: TriageResult, declaration: Declaration | None) -> list[dict[str, Any]]:
    """Return the line that says how the declaration was found among those that came in advance, or why none was.

    declared : the number it is declared for, with how sure the join is; seen : what was read of the vehicle
    """
    match = scan.declaration_match
    texts = [q.reason for q in result.quality if q.code.startswith("declaration_")]
    if match is None and not texts:
        return []
    declared, seen = "", ""
    if match is not None:
        sure = "over 99.99" if match.confidence > 0.9999 else f"{100 * match.confidence:.2f}"  # nothing is certain
        second = f", next {match.runner_up} {100 * match.runner_up_confidence:.2g} %" if match.runner_up else ""
        if match.declared:
            declared = f"{match.declared} ({match.state}, {sure} % by {match.by}{second})"
        seen = " ".join(match.read)
    if declaration is None and not declared:
        declared = "none"
    state = "differs" if texts else "agrees" if match is not None and match.state == "matched" else "open"
    return [{"label": "join", "declared": declared, "seen": seen, "state": state, "text": "; ".join(texts)}]
