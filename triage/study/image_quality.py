"""`scanlane evaluate image-quality`: a daily check scan of the site's test object, and how its figures go over time.

    name = "step plate of lane north"
    pixel_mm = 2.0                                   # at the object
    limits = {penetration_mm = 300, resolution_mm = 4}

    [[penetration]]                                  # a lead block behind so much steel, and a place beside it
    thickness_mm = 300
    block = {first_column = 400, end_column = 440, first_row = 200, end_row = 240}
    surround = {first_column = 460, end_column = 500, first_row = 200, end_row = 240}

`[[contrast]]` adds plate_mm; `[[wires]]` has diameter_mm (0 for a blank place), box and along; `[[edges]]` and
`[duplex]` have box and across. Columns and rows are pixels of the upright picture.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io import __version__
from scanner_io.errors import ConfigError, DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Radiograph
from scanner_io.recording import SUFFIX, iso
from scanner_io.storage import write_durable
from triage.analysis.correction import calibrate
from triage.analysis.image_quality import LARGER_IS_BETTER, TestObject, measure
from triage.study.plot_portal import need_matplotlib


def read_object(path: Path) -> TestObject:
    """Return the test object that a TOML file describes. Raises ConfigError."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), TestObject)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError([f"{path}: {error}"]) from error


def check_scan(path: Path, what: TestObject, readers: ForeignFiles) -> dict[str, Any]:
    """Return the figures of the image or recording at `path`; `scale` says what they are of. Raises DataError."""
    simulated = False
    if path.name.endswith(SUFFIX):
        stored = readers.recording(path)
        if stored.scan.radiograph is None:
            raise DataError(f"{path}: has no radiograph")
        image, scan_id, start_ns = stored.scan.radiograph, stored.scan.scan_id, stored.scan.start_utc_ns
        simulated = stored.scan.simulated
    else:
        image, provenance = readers.raster_file(path)
        scan_id, start_ns = provenance.sha256[:16], int(image.column_utc_ns[0])
    energies = {}
    for number, name in enumerate(image.detector.energies):
        try:
            energies[name] = measure(_transmitted(image, number), what)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": str(path), "scan": scan_id, "utc": iso(start_ns), "sha256": sha256, "simulated": simulated,
        "software": f"scanlane {__version__}", "scale": SCALES[image.detector.state], "energies": energies,
        "passed": all(e["passed"] for e in energies.values()),
    }  # fmt: skip


SCALES = {
    "raw": "transmission: counts less dark over air less dark, by channel; unusable channels bridged",
    "display": "grey values of a picture made for display, taken as linear and as they are: the site must know that",
}
"""What the figures are of, by the state of the detector."""


def _transmitted(image: Radiograph, energy: int) -> npt.NDArray[Any]:
    """Return (rows, columns), large where nothing is in the way; what was recorded raw without its channels' gains.

    A channel that is dead or has no usable dark or air is bridged from its neighbours, in a straight line. Grey values
    of a picture for display are taken as linear, which is for the site to know. Raises DataError where so many channels
    are unusable that nothing can be corrected.
    """
    detector = image.detector
    if detector.state != "raw":
        return image.upright(energy)
    found = calibrate(detector)
    if found.calibration is None:
        raise DataError("; ".join(q.reason for q in found.quality if q.fatal))
    known = found.calibration
    part = (image.counts[energy] - known.dark[energy].astype(np.float64)) * known.inv_gain[energy]
    if known.bad_channels.any():
        part = _bridged(part, known.bad_channels)
    return np.ascontiguousarray(part.T[::-1] if detector.first_channel == "bottom" else part.T)


def _bridged(part: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return (columns, channels) with the bad channels, (channels,) bool, put in from the good ones beside them."""
    good, where = np.flatnonzero(~bad), np.flatnonzero(bad)
    after = np.clip(np.searchsorted(good, where), 1, len(good) - 1)
    before, behind = good[after - 1], good[after]
    weight = np.clip((where - before) / (behind - before), 0.0, 1.0)
    whole = part.copy()
    whole[:, where] = (1 - weight) * part[:, before] + weight * part[:, behind]
    return whole


def note(trend: Path, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a check scan to a file of JSON lines, once, and return all that are in it. Raises DataError, OSError."""
    rows = []
    if trend.exists():
        for number, line in enumerate(trend.read_bytes().splitlines(), 1):
            try:
                rows.append(msgspec.json.decode(line))
            except msgspec.DecodeError as error:
                raise DataError(
                    f"{trend}, line {number}: {error}; mend or move the file, it is not written over"
                ) from error
    if all(row["sha256"] != report["sha256"] for row in rows):
        rows.append(report)
        write_durable(trend, b"".join(msgspec.json.encode(r) + b"\n" for r in rows), replace=True)
    return sorted(rows, key=lambda r: str(r["utc"]))


def picture(rows: list[dict[str, Any]], what: TestObject) -> bytes:
    """Return the trend of every figure as a PNG, with the site's limits. Raises ConfigError: no matplotlib."""
    need_matplotlib()
    import io

    from matplotlib.figure import Figure

    names = [
        n for n in LARGER_IS_BETTER if any(e["figures"][n] is not None for r in rows for e in r["energies"].values())
    ]
    figure = Figure(figsize=(9, 1.2 + 2.2 * max(1, len(names))), layout="constrained")
    simulated = sum(bool(r["simulated"]) for r in rows)
    grey = sum(r.get("scale") == SCALES["display"] for r in rows)
    figure.suptitle(
        f"{what.name}: {len(rows)} check scans"
        + (f", {simulated} of them simulated" if simulated else "")
        + (f", {grey} of grey values taken as linear" if grey else "")
    )
    panels = np.atleast_1d(figure.subplots(max(1, len(names)), 1, sharex=True))
    for axes, name in zip(panels, names, strict=False):
        for energy in rows[-1]["energies"]:
            values = [r["energies"].get(energy, {}).get("figures", {}).get(name) for r in rows]
            axes.plot(range(len(rows)), [np.nan if v is None else v for v in values], "o-", label=energy)
        if name in what.limits:
            axes.axhline(what.limits[name], color="tab:red", linestyle="--", label="limit")
        axes.set_ylabel(name.replace("_", " "))
        axes.legend(loc="best", fontsize="small")
    panels[-1].set_xticks(
        range(len(rows)), [str(r["utc"])[:16] for r in rows], rotation=30, ha="right", fontsize="small"
    )
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()
