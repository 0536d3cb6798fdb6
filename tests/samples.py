"""Small scans, made from a seed, for tests that need any scan at all."""

import numpy as np

from scanner_io.model import (
    Declaration,
    DetectorState,
    DeviceInfo,
    Finding,
    PortalRecord,
    PortalSettings,
    Quality,
    Radiograph,
    Scan,
    TriageResult,
)

SCAN_ID = "north-20260131T094501.250000Z-0f3a9c1e"
START_NS = 1_769_852_701_250_000_000


def detector(channels=40, energies=("low", "high"), **changes):
    rng = np.random.default_rng(5)
    values = {
        "energies": energies,
        "channels": channels,
        "dark": tuple(rng.uniform(90, 110, channels).astype(np.float32) for _ in energies),
        "air": tuple(rng.uniform(8000, 9000, channels).astype(np.float32) for _ in energies),
        "bad_channels": np.arange(channels) == 7,
        "air_channels": (max(0, channels - 4), channels),
        "saturation_value": 65535,
        "first_channel": "bottom",
        "column_pitch_mm": 4.0,
        "channel_pitch_mm": 5.0,
        "note": "a test's detector",
        "flags": (Quality(code="radiograph_marked", reason="a frame is drawn into it"),),
    }
    return DetectorState(**{**values, **changes})


def radiograph(columns=60, channels=40, energies=("low", "high"), seed=1, **changes):
    rng = np.random.default_rng(seed)
    values = {
        "detector": detector(channels, energies),
        "counts": tuple(rng.poisson(8000, (columns, channels)).astype(np.uint16) for _ in energies),
        "column_utc_ns": START_NS + np.arange(columns, dtype=np.int64) * 2_000_000,
    }
    return Radiograph(**{**values, **changes})


def portal(intervals=12, alarm=False, **changes):
    rng = np.random.default_rng(2)
    gamma = rng.poisson(75, (intervals, 4)).astype(np.int64)
    neutron = rng.poisson(2, (intervals // 5, 4)).astype(np.int64)
    flags = np.zeros(intervals, np.bool_)
    if alarm:
        flags[intervals // 2] = True
    lines = [
        f"{'GA' if flag else 'GS'}," + ",".join(f"{c:06d}" for c in row) for row, flag in zip(gamma, flags, strict=True)
    ]
    lines += ["NS," + ",".join(f"{c:06d}" for c in row) for row in neutron]
    values = {
        "start_utc_ns": START_NS - 500_000_000,
        "end_utc_ns": START_NS + 2_000_000_000,
        "gamma": gamma,
        "neutron": neutron,
        "gamma_alarm": flags,
        "neutron_alarm": np.zeros(neutron.shape[0], np.bool_),
        "gamma_arrival_ns": START_NS + np.arange(intervals, dtype=np.int64) * 200_000_000,
        "gamma_start_utc_ns": START_NS - 500_000_000,
        "gamma_background": np.full(4, 380.0),
        "neutron_background": np.array([3.5, 0.0, 2.6, 0.0]),
        "settings": PortalSettings(nsigma=5.0, lines=("SG1,002000,000068,05,10,05.0,P",)),
        "number": 17,
        "speed_kmh": 8.2,
        "raw_lines": tuple(lines),
    }
    return PortalRecord(**{**values, **changes})


def declaration(**changes):
    values = {
        "container_numbers": ("CSQU3054383",),
        "hs_codes": ("0901",),
        "goods": "Kaffee, geröstet",
        "gross_weight_kg": 24_000.0,
        "seals": ("S1",),
    }
    return Declaration(**{**values, **changes})


def scan(**changes):
    values = {
        "scan_id": SCAN_ID,
        "lane": "north",
        "start_utc_ns": START_NS - 500_000_000,
        "end_utc_ns": START_NS + 2_000_000_000,
        "expected": ("radiograph", "portal", "declaration"),
        "radiograph": radiograph(),
        "portal": portal(),
        "declaration": declaration(),
        "devices": (DeviceInfo(vendor="test", model="sample", kinds=("radiograph",), simulated=True),),
        "quality": (Quality(code="columns_dropped", reason="3 columns were lost"),),
    }
    return Scan(**{**values, **changes})


def result(scan_id=SCAN_ID, outcome="REVIEW", **changes):
    values = {
        "scan_id": scan_id,
        "outcome": outcome,
        "reasons": ("something darker than its surroundings",),
        "load": "loaded",
        "container": None,
        "findings": (Finding(kind="opaque", score=0.4, reason="40 % opaque", tier="review"),),
        "quality": (),
        "gamma_alarm": False,
        "neutron_alarm": False,
        "gamma_intervals": 12,
        "alarm_intervals": 0,
        "profile": "default@0",
        "code_version": "0",
        "timings_ms": {"total": 1.0},
    }
    return TriageResult(**{**values, **changes})
