"""The energy calibration of a lane: its two beams, and what known wedges let through. One TOML file.

    note = "carbon, steel and lead wedges, 2026-03-02"

    [low]                       # and [high]
    endpoint_mv = 4.0
    air_sd = 0.008              # standard deviation of one pixel in air, as a share of air
    dark_sd = 0.0001            # of a dark reading, as a share of air
    scatter_sd = 0.001          # what scattered radiation may add or lack behind cargo, as a share of air
    spectrum = "spectrum.csv"   # where known: columns energy_mev, low, high; else a bremsstrahlung beam is assumed

    [[zone]]                    # channels up to end_channel; a lane measured at one height has one zone without it
    end_channel = 1000

    [[zone.point]]
    material = "C"              # a formula, or polyethylene, graphite, aluminium, steel, lead ...
    areal_density_g_cm2 = 150.0
    alpha_low = 6.696           # -ln(transmission) through the wedge
    alpha_high = 4.347

Every zone needs points of at least three materials that differ: light, steel, and heavy. The lane names the file as
`energy_calibration`.
"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .attenuation import HIGHEST_MEV, LOWEST_MEV, weights
from .errors import ConfigError, DataError

Positive = Annotated[float, msgspec.Meta(gt=0)]

LIGHT_Z, HEAVY_Z = 10.0, 60.0
"""Points must reach below the one and above the other, and lie between them: three scalars need three witnesses."""


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thickness of one known material.

    alpha_low, alpha_high : -ln(transmission) in the two beams, mean over the wedge's pixels
    """

    material: str
    areal_density_g_cm2: Annotated[float, msgspec.Meta(gt=0, le=2000)]
    alpha_low: Annotated[float, msgspec.Meta(gt=0, le=30)]
    alpha_high: Annotated[float, msgspec.Meta(gt=0, le=30)]

    @property
    def mean_z(self) -> float:
        """Mean atomic number by weight."""
        return sum(number * share for number, share in weights(self.material).items())


class Spectrum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Photon energies in MeV, rising, and the signal (not the photons) that each brings in air, in any unit."""

    energy_mev: tuple[float, ...]
    signal: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check. Raises ValueError."""
        if len(self.energy_mev) != len(self.signal) or len(self.energy_mev) < 2:
            raise ValueError(
                f"{len(self.energy_mev)} energies and {len(self.signal)} signals, expected two or more of each"
            )
        if any(b <= a for a, b in zip(self.energy_mev, self.energy_mev[1:], strict=False)):
            raise ValueError("spectrum: energies do not rise, expected each larger than the one before")
        inside = [s for e, s in zip(self.energy_mev, self.signal, strict=True) if LOWEST_MEV <= e <= HIGHEST_MEV]
        if not all(s >= 0 for s in self.signal) or not sum(inside) > 0.9 * sum(self.signal):
            raise ValueError(
                f"spectrum: signals must be 0 or more, at least 90 % of them between {LOWEST_MEV} and {HIGHEST_MEV} MeV"
            )


class Beam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two beams, as the detector sees it.

    endpoint_mv : accelerating voltage; names the beam, and shapes it where no spectrum is told
    air_sd : standard deviation of one pixel in air, as a share of air: quanta, not source fluctuation
    dark_sd : standard deviation of a reading without beam, as a share of air
    scatter_sd : how far scattered radiation behind cargo strays from that behind the wedges, as a share of air; seen
        where a block that lets nothing through stands beside air. It does not average out
    spectrum : measured or computed; None: a thick-target bremsstrahlung beam of this voltage
    """

    endpoint_mv: Annotated[float, msgspec.Meta(ge=0.1, le=15)]
    air_sd: Annotated[float, msgspec.Meta(gt=0, le=0.2)]
    dark_sd: Annotated[float, msgspec.Meta(ge=0, le=0.05)] = 1e-4
    scatter_sd: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 1e-3
    spectrum: Spectrum | None = None


class Zone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Channels that see the same beam: off the axis it is softer.

    end_channel : first channel that no longer belongs to it; None: the last zone
    low, high : the beams of this zone where they are known apart
    """

    point: tuple[Point, ...]
    end_channel: Annotated[int, msgspec.Meta(ge=1)] | None = None
    low: Beam | None = None
    high: Beam | None = None


class EnergyCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a lane knows of its two energies.

    interlace_columns : how many columns after the low-energy pulse of the same number the high-energy one was taken;
        0 where both were taken at once, 0.5 where they alternate
    simulated : the wedges were simulated
    """

    low: Beam
    high: Beam
    zone: tuple[Zone, ...]
    interlace_columns: Annotated[float, msgspec.Meta(gt=-1, lt=1)] = 0.0
    simulated: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Check what one field alone cannot tell. Raises ValueError with every problem."""
        problems = []
        if not self.low.endpoint_mv < self.high.endpoint_mv:
            problems.append(
                f"low.endpoint_mv {self.low.endpoint_mv:g} is not below high.endpoint_mv {self.high.endpoint_mv:g}"
            )
        if not self.zone:
            problems.append("zone: none, expected at least one [[zone]] table with three points")
        ends = [z.end_channel for z in self.zone]
        known = [e for e in ends[:-1] if e is not None]
        if len(known) < len(ends) - 1 or sorted(set(known)) != known:
            problems.append(f"zone: end_channel {ends}, expected rising numbers in all zones but the last")
        for number, zone in enumerate(self.zone):
            problems += [f"zone[{number}].{p}" for p in _wrong_points(zone.point)]
        if problems:
            raise ValueError("; ".join(problems))


def _wrong_points(points: tuple[Point, ...]) -> list[str]:
    problems, numbers = [], []
    for index, point in enumerate(points):
        where = f"point[{index}] ({point.material}, {point.areal_density_g_cm2:g} g/cm2)"
        try:
            numbers.append(point.mean_z)
        except DataError as error:
            problems.append(f"{where}: {error}")
        if not point.alpha_low > point.alpha_high:
            problems.append(
                f"{where}: alpha_low {point.alpha_low:g} is not above alpha_high {point.alpha_high:g}: every material "
                "absorbs more of the lower energy; are the two exchanged?"
            )
    light = any(z <= LIGHT_Z for z in numbers)
    middle = any(LIGHT_Z < z < HEAVY_Z for z in numbers)
    heavy = any(z >= HEAVY_Z for z in numbers)
    if not problems and not (light and middle and heavy):
        seen = ", ".join(sorted({p.material for p in points})) or "none"
        problems.append(
            f"point: materials {seen}, expected at least three: a light one (carbon, polyethylene), steel or the like, "
            "and a heavy one (lead, tungsten)"
        )
    return problems


def load(path: Path) -> EnergyCalibration:
    """Return the energy calibration in the TOML file `path`. Raises ConfigError with every problem found."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error}); name the lane's energy calibration"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error
    problems: list[str] = []
    for place, beams in (("", table), *((f"zone[{i}].", z) for i, z in enumerate(_tables(table.get("zone"))))):
        for name in ("low", "high"):
            beam = beams.get(name)
            if isinstance(beam, dict) and isinstance(beam.get("spectrum"), str):
                beam["spectrum"] = _spectrum(path.parent / beam["spectrum"], name, f"{place}{name}.spectrum", problems)
    if not problems:
        try:
            return msgspec.convert(table, EnergyCalibration, strict=True)
        except msgspec.ValidationError as error:
            problems = [_in_words(part) for part in str(error).split("; ")]
    raise ConfigError([f"{path}: {p}" for p in problems])


def _in_words(problem: str) -> str:
    """Return a problem of `convert` with the place in front, as the other problems have it."""
    text, _, place = problem.partition(" - at `$")
    return f"{place.rstrip('`').lstrip('.')}: {text}" if place.rstrip("`") else text


def _tables(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _spectrum(path: Path, name: str, where: str, problems: list[str]) -> Any:
    """Return the spectrum of one beam from a CSV file with the columns energy_mev, low, high."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        energy, signal = ([float(row[key]) for row in rows] for key in ("energy_mev", name))
        return {"energy_mev": energy, "signal": signal}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{where}: {path} cannot be read ({error})")
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"{where}: {path}: {error!r}, expected the columns energy_mev, low, high with numbers")
    return None


def to_toml(calibration: EnergyCalibration) -> str:
    """Return the file that `load` reads as `calibration`."""
    lines = [
        f"note = {_text(calibration.note)}",
        f"interlace_columns = {calibration.interlace_columns!r}",
        f"simulated = {str(calibration.simulated).lower()}",
        f"low = {_beam(calibration.low)}",
        f"high = {_beam(calibration.high)}",
    ]
    for zone in calibration.zone:
        lines += ["", "[[zone]]"]
        if zone.end_channel is not None:
            lines.append(f"end_channel = {zone.end_channel}")
        lines += [f"{name} = {_beam(b)}" for name, b in (("low", zone.low), ("high", zone.high)) if b is not None]
        lines += ["point = [", *(f"    {_table(p, ('material',))}," for p in zone.point), "]"]
    return "\n".join(lines) + "\n"


def _beam(beam: Beam) -> str:
    plain = _table(msgspec.structs.replace(beam, spectrum=None), ())
    if beam.spectrum is None:
        return plain
    values = ", ".join(f"{n} = {list(getattr(beam.spectrum, n))}" for n in ("energy_mev", "signal"))
    return f"{plain[:-1]}, spectrum = {{{values}}}}}"


def _table(struct: msgspec.Struct, texts: tuple[str, ...]) -> str:
    values = {n: getattr(struct, n) for n in struct.__struct_fields__}
    told = (f"{n} = {_text(v) if n in texts else repr(v)}" for n, v in values.items() if v is not None)
    return f"{{{', '.join(told)}}}"


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON text is a TOML basic string
