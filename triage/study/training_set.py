"""A training folder from a lane's own scans: threats projected into some of them, and what each carries in a file.

Both kinds, with and without a threat, are written anew under ids of their own and marked as simulated, so that nothing
about a recording but its picture tells them apart, and none is ever taken for the scan that it was made from.

Source: Rogers et al., "Threat image projection (TIP) into X-ray images of cargo containers for training humans and
machines", 2016.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Box, DeviceInfo, Radiograph, Scan
from scanner_io.storage import write_durable
from triage.analysis.container import find_containers
from triage.analysis.picture import transmission
from triage.service.assembly import make_scan_id
from triage.service.lane import Judge, recording_path

from .insertions import Insertion, Kind, Scale, insert

Array: TypeAlias = NDArray[Any]

KINDS: tuple[Kind, ...] = ("compact", "brick", "metal", "slab", "item")
PROJECTION = DeviceInfo(
    vendor="scanlane", model="threat image projection", kinds=("radiograph",), simulated=True, note="for training only"
)
_LOW_PER_HIGH = 1.28
"""Attenuation of steel at the lower energy of a pair, over that at the higher; at 4 and 10 MV behind 155 g/cm2."""


def make_training_set(
    paths: list[Path], out: Path, share: float, seed: int, judge: Judge, readers: ForeignFiles,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Write a training folder of recordings; return how many there are, and how many carry a threat.

    share : of the scans that get a threat, where there is a place for one

    Raises DataError if none of the recordings shows a container.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for path in paths:
        scan = readers.recording(path).scan
        progress()
        if scan.radiograph is None:
            continue
        kind = KINDS[int(rng.integers(len(KINDS)))] if rng.random() < share else ""
        made, box = _projected(scan.radiograph, kind, rng) if kind else (scan.radiograph, None)
        if kind and box is None:
            kind = ""
        trained = _renamed(scan, made, f"training {seed}")
        target = recording_path(out, trained)
        target.parent.mkdir(parents=True, exist_ok=True)
        recording.write(target, trained, config={"training": True}, result=judge(trained), replace=True)
        told = None if box is None else {"type": "box", **msgspec.to_builtins(box)}
        rows.append({"file": target.name, "scan_id": trained.scan_id, "threat": kind, "threat_box": told})
    if not rows:
        raise DataError(f"{len(paths)} recordings: none holds a radiograph to train on")
    text = json.dumps({"simulated": True, "vehicles": rows}, indent=1).encode() + b"\n"
    write_durable(out / "truth.json", text, replace=True)
    return {"scans": len(rows), "threats": sum(bool(row["threat"]) for row in rows), "folder": str(out)}


def _renamed(scan: Scan, radiograph: Radiograph, content: str) -> Scan:
    """Return a scan of its own with this radiograph: neither its id nor its source leads back."""
    return msgspec.structs.replace(
        scan, scan_id=make_scan_id(scan.lane, scan.start_utc_ns, content), radiograph=radiograph,
        devices=(*scan.devices, PROJECTION), source="", source_sha256="",
    )  # fmt: skip


def _projected(radiograph: Radiograph, kind: Kind, rng: np.random.Generator) -> tuple[Radiograph, Box | None]:
    """Return the radiograph with a threat in it and where; the radiograph itself where there is no place for one."""
    detector = radiograph.detector
    frames = find_containers(np.ascontiguousarray(transmission(radiograph)))
    if not frames:
        return radiograph, None
    frame = frames[int(rng.integers(len(frames)))]
    flipped = detector.first_channel == "bottom"
    scales = [_scale(radiograph, energy, flipped=flipped) for energy in range(len(detector.energies))]
    images = [np.ascontiguousarray(radiograph.upright(energy)) for energy in range(len(detector.energies))]
    found = insert(images[-1], frame.corners, kind, "test", rng, scale=scales[-1])
    if found is None:
        return radiograph, None
    passed = _passed(images[-1], found, scales[-1])
    changed = [_through(i, passed**_LOW_PER_HIGH, s) for i, s in zip(images[:-1], scales[:-1], strict=True)]
    counts = tuple(np.ascontiguousarray((i[::-1] if flipped else i).T) for i in (*changed, found.image))
    y, x = np.nonzero(found.mask)
    y0, y1 = int(y.min()), int(y.max()) + 1
    if flipped:
        y0, y1 = detector.channels - y1, detector.channels - y0
    box = Box(first_column=int(x.min()), end_column=int(x.max()) + 1, first_channel=y0, end_channel=y1)
    return msgspec.structs.replace(radiograph, counts=counts), box


def _scale(radiograph: Radiograph, energy: int, *, flipped: bool) -> Scale:
    detector = radiograph.detector
    if detector.state == "display":
        return Scale(air=float(detector.saturation_value), top=detector.saturation_value)
    step = -1 if flipped else 1
    dark, air = (np.asarray(r[energy], np.float32)[::step, None] for r in (detector.dark, detector.air))
    return Scale(dark=dark, air=np.maximum(air, dark + 1), top=detector.saturation_value, physical=True)


def _passed(clean: Array, found: Insertion, scale: Scale) -> Array:
    """Return what part of the beam passes the object, 1 where there is none."""
    before, after = scale.transmission(clean), scale.transmission(found.image)
    return np.where(found.image != clean, np.clip(after / np.maximum(before, 1e-4), 0.0, 1.0), 1.0)


def _through(image: Array, passed: Array, scale: Scale) -> Array:
    net = (image - scale.dark) * passed
    return np.where(passed < 1, np.clip(np.rint(net + scale.dark), 0, scale.top), image).astype(image.dtype)
