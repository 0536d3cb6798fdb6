"""Spectrum files of other kinds (.pcf, .spc, .chn, …), through SandiaSpecUtils where it is installed (extra `spectra`).

Only for files that no reader here knows: its N42 reader drops the gross counts of plastic portals, so N42 files are
refused here. What it gives becomes an `N42Document`, so that everything behind it is the same.

Source: SpecUtils (LGPL-2.1), used through its Python package.
"""

from __future__ import annotations

import datetime as dt
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..model import MAX_CHANNELS, NANOSECONDS
from . import n42
from .n42.context import MAX_MEASUREMENTS
from .n42.document import (
    Calibration,
    Detector,
    GrossCounts,
    Instrument,
    Measurement,
    MeasurementClass,
    N42Document,
    Problem,
    Spectrum,
)

SUFFIXES = frozenset({".pcf", ".spc", ".chn", ".cnf", ".spe", ".lzs", ".phd"})
MAX_BYTES = 64 << 20
_CLASSES: dict[str, MeasurementClass] = {
    "Foreground": "Foreground",
    "Background": "Background",
    "Calibration": "Calibration",
    "IntrinsicActivity": "IntrinsicActivity",
}


def read_spectra(path: str | Path, *, opened_as: str | None = None) -> N42Document:
    """Return what the spectrum file at `path` holds.

    opened_as : path under which it is opened where that is another than messages are to tell

    Raises DataError if the extra `spectra` is not installed, the file is N42, is too large, or cannot be read.
    """
    path = Path(path)
    place = path if opened_as is None else Path(opened_as)
    try:
        if not place.is_file():
            raise DataError(f"{path}: {'is no plain file' if place.exists() else 'no such file'}")
        with place.open("rb") as file:
            head = file.read(4096)
        size = place.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if n42.sniff(head):
        raise DataError(f"{path}: is an N42 file; read it with scanner_io.formats.n42, which keeps its gross counts")
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes, at most {MAX_BYTES} are read; split the file")
    spec_utils = _library(path)
    file = spec_utils.SpecFile()
    try:
        file.loadFile(str(place), spec_utils.ParserType.Auto, path.suffix.lstrip("."))
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: SpecUtils cannot read it ({error}); expected {', '.join(sorted(SUFFIXES))}"
        ) from error
    measurements = list(file.measurements())
    if len(measurements) > MAX_MEASUREMENTS:
        raise DataError(
            f"{path}: {len(measurements)} measurements, at most {MAX_MEASUREMENTS} are read; split the file"
        )
    return _document(file, measurements)


def _library(path: Path) -> Any:
    try:
        return importlib.import_module("SpecUtils")
    except ImportError as error:
        raise DataError(
            f"{path}: spectrum files of this kind need the package SandiaSpecUtils, which is not installed ({error}); "
            "install scanlane[spectra], or export the file as N42 where it comes from"
        ) from error


def _document(file: Any, measurements: list[Any]) -> N42Document:
    detectors: dict[str, Detector] = {}
    calibrations: dict[tuple[float, ...], Calibration] = {}
    problems: list[Problem] = []
    slices: dict[int, list[Any]] = {}
    for m in measurements:
        slices.setdefault(int(m.sampleNumber()), []).append(m)
    found = [_slice(number, parts, detectors, calibrations, problems) for number, parts in slices.items()]
    unsure = Problem(line=0, where="SpecUtils", text="read by a package that may pass over damage in silence")
    warnings = [Problem(line=0, where="SpecUtils", text=str(w)[:400]) for w in file.parseWarnings()]
    return N42Document(
        uuid=file.uuid(),
        creator="SpecUtils",
        instrument=Instrument(
            manufacturer=file.manufacturer(), model=file.instrumentModel(), identifier=file.instrumentId(),
            description=file.instrumentType(),
        ),
        detectors=tuple(detectors.values()),
        calibrations=tuple(calibrations.values()),
        measurements=tuple(found),
        remarks=tuple(file.remarks()),
        problems=(*problems, *warnings, unsure),
    )  # fmt: skip


def _slice(
    number: int,
    parts: list[Any],
    detectors: dict[str, Detector],
    calibrations: dict[tuple[float, ...], Calibration],
    problems: list[Problem],
) -> Measurement:
    """Return all detectors' measurements of one sample as one measurement."""
    spectra, gross = [], []
    for m in parts:
        name = m.detectorName() or "detector"
        live_time_s, real_time_s = float(m.liveTime()) or None, float(m.realTime()) or None
        counts = np.array(m.gammaCounts() or [], np.float64)
        if counts.size > MAX_CHANNELS:
            text = f"{counts.size} channels of {name}, at most {MAX_CHANNELS} are read"
            problems.append(Problem(line=0, where=f"sample {number}", text=text, counts_lost=True))
        elif counts.size:
            detectors.setdefault(name, Detector(id=name, category="Gamma"))
            spectra.append(
                Spectrum.of(
                    name,
                    counts,
                    live_time_s=live_time_s,
                    real_time_s=real_time_s,
                    calibrations=_calibration(m, calibrations),
                )
            )
        if m.containedNeutron():
            neutron = f"{name}-neutron"
            detectors.setdefault(neutron, Detector(id=neutron, category="Neutron"))
            total = float(m.neutronCountsSum())
            gross.append(GrossCounts(detector=neutron, counts=(total,), live_time_s=real_time_s))
    first = parts[0]
    occupied = {"Occupied": True, "NotOccupied": False}.get(_name(first.occupied()))
    times = [float(m.realTime()) for m in parts if m.realTime() > 0]
    return Measurement(
        id=f"sample-{number}",
        class_code=_CLASSES.get(_name(first.sourceType()), "NotSpecified"),
        start_utc_ns=_utc_ns(first.startTime()),
        real_time_s=max(times, default=None),
        gross=tuple(gross),
        spectra=tuple(spectra),
        occupied=occupied,
        speed=float(first.speed()) or None,
        speed_unit="m/s",
        remarks=tuple(r for r in (first.title(), *first.remarks()) if r),
    )


def _name(value: Any) -> str:
    return str(getattr(value, "name", value)).rsplit(".", 1)[-1]


def _calibration(m: Any, calibrations: dict[tuple[float, ...], Calibration]) -> tuple[str, ...]:
    """Return the id of the energy calibration; other models than a polynomial say where channels begin."""
    coefficients = tuple(float(c) for c in m.calibrationCoeffs())
    model = _name(m.energyCalibrationModel())
    boundaries: tuple[float, ...] = ()
    if model not in ("Polynomial", "UnspecifiedUsingDefaultPolynomial"):
        energies = m.channelEnergies()
        boundaries = tuple(float(e) for e in energies) if energies is not None else ()
        coefficients = ()
    if not (coefficients or boundaries):
        return ()
    known = calibrations.get(coefficients or boundaries)
    if known is None:
        known = Calibration(id=f"energy-{len(calibrations) + 1}", coefficients=coefficients, boundaries_kev=boundaries)
        calibrations[coefficients or boundaries] = known
    return (known.id,)


def _utc_ns(start: Any) -> int | None:
    """Return an instant; SpecUtils gives one without zone, which is taken for UTC."""
    if not isinstance(start, dt.datetime) or start.year < 1971:
        return None
    return int(start.replace(tzinfo=dt.UTC).timestamp()) * NANOSECONDS + start.microsecond * 1000
