"""The evidence bundle of an opened scan: what was seen, said and decided, in one file that can be checked later."""

from __future__ import annotations

import html
import json
from typing import Any

import msgspec

from scanner_io import __version__
from scanner_io.bundle import TOLD, pack
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
        "summary.html": _summary(told).encode(),
    }
    for energy, pyramid in zip(scan.meta["energies"], scan.pyramids, strict=True):
        files[f"{_plain(energy['name'])}-16bit.png"] = png(pyramid.whole(0))
    if scan.pyramids:
        files["preview.png"] = _preview(scan)
    return pack(files)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


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


def _summary(told: dict[str, Any]) -> str:
    """Return a page that needs nothing else; every word of others is escaped."""

    def text(value: Any) -> str:
        return html.escape(str(value))

    def rows(pairs: list[tuple[str, Any]]) -> str:
        return "".join(f"<tr><th>{text(k)}</th><td>{text(v)}</td></tr>" for k, v in pairs if v not in (None, "", []))

    declaration = told["declaration"] or {}
    findings = "".join(
        f"<li><b>{text(f['tier'])}</b> {text(f['kind'])}: {text(f['reason'])}</li>" for f in told["findings"]
    )
    decisions = "".join(
        f"<li><b>{text(d['verdict'])}</b> by {text(d['analyst'])}, codes {text(d['codes'])}, {text(d['state'])}: "
        f"{text(d['note'])}</li>"
        for d in told["decisions"]
    )
    signed = {s["opinion_id"] for s in told["signed_opinions"]}
    opinions = "".join(
        f"<li><b>{text(o['verdict'] or 'not shown yet')}</b> by {text(o['who'])}"
        f"{'' if o['hidden'] else ', signed' if o['opinion_id'] in signed else ', not signed'}: {text(o['note'])}</li>"
        for o in told["opinions"]
    )
    head = [
        ("Scan", told["scan_id"]), ("SHA-256 of the recording", told["sha256"]), ("Lane", told["lane"]),
        ("Passage", told["start_utc"]), ("Outcome", told["outcome"]), ("Load", told["load"]),
        ("Simulated", "YES" if told["simulated"] else "no"), ("Made by", f"{told['made_by']}, {told['software']}"),
    ]  # fmt: skip
    picture = '<img src="preview.png" alt="radiograph">' if told["energies"] else "<p>No radiograph.</p>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{text(told['scan_id'])}</title>"
        "<style>body{font:15px system-ui;margin:2rem;max-width:70rem}img{max-width:100%;border:1px solid #888}"
        "th{text-align:left;padding-right:1rem;vertical-align:top}</style>"
        f"<h1>Evidence: {text(told['scan_id'])}</h1><table>{rows(head)}</table>{picture}"
        f"<h2>Findings</h2><ol>{findings or '<li>none; no finding is not a clearance</li>'}</ol>"
        f"<h2>Declared</h2><table>{rows(list(declaration.items()))}</table>"
        f"<h2>Decisions at this desk</h2><ul>{decisions or '<li>none</li>'}</ul>"
        f"<h2>Opinions before</h2><ul>{opinions or '<li>none</li>'}</ul>"
        f"<p>Everything else is in {TOLD}. Check the bundle with: scanlane verify FILE</p></html>"
    )
