"""The evidence bundle of an opened scan: what was seen, said and decided, in one file that can be checked later."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from scanner_io import __version__
from scanner_io.bundle import TOLD, energy_name, pack, summary
from scanner_io.recording import SUFFIX, iso

from .images import Look, png, rendered
from .station import OpenScan, Station

PREVIEW_LEVEL_PIXELS = 2400


def bundle(station: Station, scan: OpenScan) -> bytes:
    """Return the bundle of an opened scan as a ZIP."""
    assert scan.data is not None and scan.offer is not None
    told = _told(station, scan)
    files: dict[str, bytes | memoryview] = {
        f"{scan.scan_id}{SUFFIX}": scan.data,
        TOLD: json.dumps(told, indent=1).encode(),
        "summary.html": summary(told).encode(),
    }
    for energy, pyramid in zip(scan.meta["energies"], scan.pyramids, strict=True):
        files[energy_name(energy["name"])] = png(pyramid.whole(0))
    if scan.pyramids:
        files["preview.png"] = _preview(scan)
    return pack(files)


def _preview(scan: OpenScan) -> bytes:
    """Return the picture in plain grey in the automatic window, at most PREVIEW_LEVEL_PIXELS wide."""
    pyramid = scan.pyramids[-1]
    level = 0
    while pyramid.size(level)[0] > PREVIEW_LEVEL_PIXELS and level < pyramid.levels - 1:
        level += 1
    whole = pyramid.whole(level)
    auto = scan.meta["presets"][1]
    return png(rendered(whole, Look(low=auto["low"], high=auto["high"]), pyramid.white))


def _told(station: Station, scan: OpenScan) -> dict[str, Any]:
    assert scan.offer is not None
    kept = ("histogram", "percentiles")
    meta = {k: v for k, v in scan.meta.items() if k not in ("presets", "material")}
    meta["energies"] = [{k: v for k, v in e.items() if k not in kept} for e in meta["energies"]]
    decisions = [
        {**msgspec.to_builtins(entry.made), "state": entry.state, "reason": entry.reason}
        for entry in station.journal.entries(scan_id=scan.scan_id)
    ]
    return {
        **meta,
        "size": scan.offer.size,
        "start_utc": iso(int(scan.meta["start_utc_ns"])),
        "decisions": decisions,
        "opinions": station.opinions(scan.scan_id),
        "signed_opinions": [
            {"opinion_id": s.opinion_id, "statement": s.statement.hex(), "signature": s.signature.hex()}
            for s in scan.signed
        ],
        "regions": station.journal.kept(scan.scan_id, "regions", []),
        "history": station.journal.history(scan_id=scan.scan_id),
        "made_by": station.analyst,
        "software": f"scanlane {__version__}",
    }
