"""Records of passages to documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from ...model import NANOSECONDS, Declaration, DeviceInfo, PortalRecord
from .document import (
    PUBLISHED_RATE,
    RECORDED_FAULT,
    SETTINGS_NAMES,
    WINDOW_ALARM,
    Alarm,
    Analysis,
    Characteristic,
    Detector,
    Fault,
    GrossCounts,
    Instrument,
    Item,
    Measurement,
    N42Document,
    Version,
)

BY_WINDOW = "counts of one energy window each, whose energies the portal does not tell"


def of_record(
    record: PortalRecord,
    *,
    device: DeviceInfo | None = None,
    declaration: Declaration | None = None,
    simulated: bool = False,
    software: str = "",
) -> N42Document:
    """Return a record of a passage as a document that `passages` leads back to the same counts, flags and background.

    simulated : the label is carried in the first remark and in the instrument's description

    Counts by energy window go into derived data, for which energies they are of no portal tells. Not carried: arrival
    times, discriminator levels, the background by window and raw lines, for which the standard has no place.
    """
    simulated = simulated or record.simulated or bool(device is not None and device.simulated)
    label = ("SIMULATED: these counts were computed, no radiation was measured",) if simulated else ()
    gamma = [
        Detector(id=f"gamma-{i + 1}", category="Gamma", description="gamma detector, kind not told by the portal")
        for i in range(record.gamma.shape[1])
    ]
    neutron = [
        Detector(id=f"neutron-{i + 1}", category="Neutron", description="neutron detector, kind not told by the portal")
        for i in range(record.neutron.shape[1])
    ]
    background, banks = _background_of(record, gamma, neutron)
    neutron_start = record.start_utc_ns if record.neutron_start_utc_ns is None else record.neutron_start_utc_ns
    slices = _slices("gamma", gamma, record.gamma, record.gamma_start_utc_ns, record.gamma_interval_s)
    occupied = [
        *(_with_windows(m, w, gamma) for m, w in zip(slices, _windows(record), strict=True)),
        *_slices("neutron", neutron, record.neutron, neutron_start, record.neutron_interval_s),
    ]
    if occupied:
        faults = tuple(
            Fault(code=f, description=RECORDED_FAULT, severity="Error" if record.truncated else "Warning")
            for f in record.faults
        )
        unit = "" if record.speed_kmh is None else "km/h"
        occupied[0] = msgspec.structs.replace(occupied[0], faults=faults, speed=record.speed_kmh, speed_unit=unit)
    number = () if record.number is None else (f"Occupancy number = {record.number}",)
    return N42Document(
        creator="scanlane",
        instrument=_instrument_of(record, device, simulated, software),
        detectors=(*gamma, *neutron, *banks),
        items=tuple(_items(declaration)),
        groups=("passage",),
        measurements=(*background, *occupied),
        analyses=(
            *_alarm_of(record.gamma_alarm, "gamma", "Gamma", gamma),
            *_alarm_of(record.neutron_alarm, "neutron", "Neutron", neutron),
            *_alarm_of(record.gamma_windows_alarm, "gamma", "Gamma", gamma, WINDOW_ALARM),
        ),
        remarks=(
            *label, *number, f"Boot epoch = {record.boot_epoch}", f"Passage ended as: {record.end_reason}",
            "The first slices may have been buffered by the portal before the vehicle came",
        ),
    )  # fmt: skip


def _instrument_of(record: PortalRecord, device: DeviceInfo | None, simulated: bool, software: str) -> Instrument:
    settings = record.settings
    told = []
    if settings is not None:
        for name, field in SETTINGS_NAMES.items():
            value = getattr(settings, field)
            if value not in (None, ""):
                kind = "double" if isinstance(value, float) else "integer" if isinstance(value, int) else "string"
                told.append(Characteristic(name=name, value=str(value), value_class=kind))
    description = device.note if device is not None else ""
    return Instrument(
        id="portal",
        manufacturer=device.vendor if device is not None else "",
        model=device.model if device is not None else "",
        identifier=device.serial if device is not None else "",
        description=f"SIMULATED {description}".strip() if simulated else description,
        class_code="Portal Monitor",
        versions=(Version(component="Software", version=f"scanlane {software}".strip()),),
        characteristics=tuple(told),
        remarks=() if settings is not None else ("alarm settings were not told by the portal",),
    )


def _items(declaration: Declaration | None) -> Iterator[Item]:
    """Yield the vehicle, which carries the first container, and an item per further container."""
    containers = declaration.container_numbers if declaration is not None else ()
    for i, number in enumerate(containers or ("",)):
        told = (Characteristic(name="ContainerID", value=number),) if number else ()
        yield Item(id="vehicle" if i == 0 else f"container-{i + 1}", characteristics=told)


def _slices(
    kind: str, detectors: list[Detector], counts: npt.NDArray[np.int64], start: int, interval_s: float
) -> list[Measurement]:
    step_ns = round(interval_s * NANOSECONDS)
    return [
        Measurement(
            id=f"{kind}-slice-{i + 1}",
            class_code="Foreground",
            start_utc_ns=start + i * step_ns,
            real_time_s=interval_s,
            gross=tuple(
                GrossCounts(detector=d.id, counts=(float(n),), live_time_s=interval_s)
                for d, n in zip(detectors, row, strict=True)
            ),
            occupied=True,
            groups=("passage",),
        )
        for i, row in enumerate(counts.tolist())
    ]


def _windows(record: PortalRecord) -> Iterable[npt.NDArray[np.int64] | None]:
    return record.gamma_windows if record.gamma_windows is not None else [None] * record.gamma.shape[0]


def _with_windows(m: Measurement, counts: npt.NDArray[np.int64] | None, gamma: list[Detector]) -> Measurement:
    """Return a slice with its `(windows,)` or `(detectors, windows)` counts beside those of all energies."""
    if counts is None:
        return m
    names = [d.id for d in gamma] if counts.ndim == 2 else ["gamma-windows"]
    rows = np.atleast_2d(counts).tolist()
    beside = tuple(
        GrossCounts(detector=name, counts=tuple(map(float, row)), live_time_s=m.real_time_s, remarks=(BY_WINDOW,))
        for name, row in zip(names, rows, strict=True)
    )
    return msgspec.structs.replace(m, gross=(*m.gross, *beside))


def _background_of(
    record: PortalRecord, gamma: list[Detector], neutron: list[Detector]
) -> tuple[list[Measurement], list[Detector]]:
    """Return the background as a measurement, and detectors that only it has."""
    gross = []
    banks: list[Detector] = []
    for rates, detectors, category in (
        (record.gamma_background, gamma, "Gamma"),
        (record.neutron_background, neutron, "Neutron"),
    ):
        if rates is None:
            continue
        if rates.size != len(detectors):  # GX tells one number for all neutron detectors
            text = "all detectors together, or not the number that the slices have"
            detectors = [
                Detector(id=f"{category.lower()}-background-{i + 1}", category=category, description=text)
                for i in range(rates.size)
            ]
            banks += detectors
        gross += [
            GrossCounts(detector=d.id, counts=(float(r),), live_time_s=1.0)
            for d, r in zip(detectors, rates.tolist(), strict=True)
        ]
    if not gross:
        return [], []
    start = min(record.start_utc_ns, record.gamma_start_utc_ns) - NANOSECONDS
    measurement = Measurement(
        id="background",
        class_code="Background",
        start_utc_ns=max(0, start),
        real_time_s=1.0,
        gross=tuple(gross),
        occupied=False,
        remarks=(PUBLISHED_RATE,),
    )
    return [measurement], banks


def _alarm_of(
    flags: npt.NDArray[np.bool_] | None,
    kind: str,
    category: str,
    detectors: list[Detector],
    description: str = "the portal's own alarm",
) -> tuple[Analysis, ...]:
    if flags is None or not flags.any():
        return ()
    alarm = Alarm(category=category, description=description, detectors=tuple(d.id for d in detectors))
    references = tuple(f"{kind}-slice-{i + 1}" for i in np.flatnonzero(flags).tolist())
    return (Analysis(of="measurement", references=references, alarms=(alarm,)),)
