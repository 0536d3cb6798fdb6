"""What an ANSI N42.42 document says, in types of its own.

Both editions end in the same types: the 2006 one ("N42InstrumentData") is read into the terms of that of 2012
("RadInstrumentData", schema 2011). References between parts are ids, as in the file. What could not be read is named in
`N42Document.problems`; doses, images and vendors' extensions have no place here and are passed over.

Source: ANSI N42.42-2012 (IEC 62755), its XML schema n42.xsd.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...model import MAX_CHANNELS, frozen_array

Form = Literal["2012", "2006"]
MeasurementClass = Literal["Foreground", "Background", "Calibration", "IntrinsicActivity", "NotSpecified"]
Reference = Literal["measurement", "group", "derived"]

UNKNOWN_START = "start time not known, another is written in its place"
UNKNOWN_REAL_TIME = "real time not known, another is written in its place"
UNKNOWN_LIVE_TIME = "live time not known, another is written in its place"
NO_CALIBRATION = "energy calibration not known, zeroes are written in its place"
INCOMPLETE = "INCOMPLETE: "
TWO_SCALES = "two energy scales end to end in one list of channels"
CATEGORIES = frozenset({"gamma", "neutron", "alpha", "beta", "x-ray", "other"})
"""Categories of detectors, in small letters."""
PUBLISHED_RATE = "background in counts/s as the portal published it, written as the counts of one second"
RECORDED_FAULT = "told in the record of the passage"
WINDOW_ALARM = "the portal's own alarm over energy windows"
"""Texts by which the writer says what a place does not hold, or whose it is; the reader knows them."""

SETTINGS_NAMES = {
    "AlarmIntervals": "gamma_intervals", "HoldInIntervals": "hold_in_intervals", "NSigma": "nsigma",
    "AlgorithmMask": "algorithm_mask", "GammaHighFault": "gamma_high_fault", "GammaLowFault": "gamma_low_fault",
    "NeutronHighFault": "neutron_high_fault", "Firmware": "firmware", "GammaDetectorsOn": "gamma_detectors_on",
    "GammaBackgroundTime": "gamma_background_s", "GammaBackgroundSigma": "gamma_background_sigma",
    "NeutronMaxIntervals": "neutron_max_intervals", "NeutronAlpha": "neutron_alpha", "NeutronZmax": "neutron_zmax",
    "NeutronSequentialIntervals": "neutron_sequential_intervals", "NeutronBackgroundTime": "neutron_background_s",
    "RelayOutput": "relay_output", "SoftwareLetter": "software",
}  # fmt: skip
"""Characteristics of the instrument that hold the settings of a Rapiscan portal, and their names in PortalSettings."""
METRES_PER_S = {
    "m/s": 1.0, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "mph": 0.44704, "mi/h": 0.44704, "cm/s": 0.01,
    "ft/s": 0.3048,
}  # fmt: skip
"""Metres per second in one of each unit of speed."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a document that is not as it should be.

    line : of the file, 0 where none can be named
    where : element
    counts_lost : counts (or an alarm) stand in the file that are not in the document
    harmless : a habit of the writing instrument that leaves what it measured plain; anything else casts doubt on it
    """

    line: int
    where: str
    text: str
    counts_lost: bool = False
    harmless: bool = False

    def __str__(self) -> str:
        return f"line {self.line}, {self.where}: {self.text}"


class Characteristic(msgspec.Struct, frozen=True, kw_only=True):
    """A named value that the standard has no element for, e.g. `ContainerID` of an item."""

    name: str
    value: str
    units: str = "unit-less"
    value_class: str = "string"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Version of one component of an instrument."""

    component: str
    version: str


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """Which instrument measured. class_code : e.g. `Portal Monitor`, `Spectroscopic Portal Monitor`."""

    id: str = "instrument"
    manufacturer: str = ""
    model: str = ""
    identifier: str = ""
    description: str = ""
    class_code: str = "Other"
    versions: tuple[Version, ...] = ()
    characteristics: tuple[Characteristic, ...] = ()
    remarks: tuple[str, ...] = ()


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """One detector. category : Gamma, Neutron, …; kind : PVT, He3, NaI, HPGe, …"""

    id: str
    category: str = "Other"
    kind: str = "Other"
    name: str = ""
    description: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, e.g. a vehicle."""

    id: str
    description: str = ""
    characteristics: tuple[Characteristic, ...] = ()

    def characteristic(self, name: str) -> str:
        """Return the value of the characteristic of that name, "" if there is none."""
        wanted = name.casefold()
        return next((c.value for c in self.characteristics if c.name.replace(" ", "").casefold() == wanted), "")


class EnergyWindows(msgspec.Struct, frozen=True, kw_only=True):
    """Energy windows of gross counts in keV. They may overlap: their counts are never to be added up."""

    id: str
    start_kev: tuple[float, ...]
    end_kev: tuple[float, ...]

    def covering(self) -> int | None:
        """Return the window that contains all others, None if there is none."""
        if not self.start_kev:
            return None
        low, high = min(self.start_kev), max(self.end_kev)
        pairs = list(zip(self.start_kev, self.end_kev, strict=True))
        return pairs.index((low, high)) if (low, high) in pairs else None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Energy calibration: a polynomial of the channel in keV (any number of terms), or the channels' boundaries."""

    id: str
    coefficients: tuple[float, ...] = ()
    boundaries_kev: tuple[float, ...] = ()


class GrossCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one detector in one measurement.

    counts : one number, or one per energy window, in the order of the windows
    total : of all energies, where the file tells it beside the windows
    """

    detector: str
    counts: tuple[float, ...]
    live_time_s: float | None = None
    windows: str = ""
    total: float | None = None
    remarks: tuple[str, ...] = ()


class Spectrum(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Counts by channel of one detector in one measurement.

    counted : `(n,) float64`, counted-zeroes form: a 0 is followed by the number of zeroes it stands for, itself
        included; so it stays as small as the file, whatever number of channels it stands for
    calibrations : ids; two where a file lays two energy scales end to end in one list of channels
    real_time_s : where a detector was not read in step with the others
    detector : "" where derived data name none
    """

    detector: str
    counted: npt.NDArray[np.float64]
    live_time_s: float | None = None
    real_time_s: float | None = None
    calibrations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and freeze. Raises DataError."""
        counted = frozen_array("Spectrum", "counted", self.counted, np.float64, (None,))
        if not np.isfinite(counted).all():
            raise DataError(f"Spectrum of {self.detector}: a count is not finite")
        zeros = np.flatnonzero(counted == 0)
        runs = counted[zeros + 1] if zeros.size and zeros[-1] + 1 < counted.size else np.zeros(zeros.size)
        if (runs < 1).any() or (runs % 1).any():
            raise DataError(f"Spectrum of {self.detector}: a zero is not followed by the length of its run")
        channels = counted.size - 2 * zeros.size + float(runs.sum())
        if not 1 <= channels <= MAX_CHANNELS:
            raise DataError(f"Spectrum of {self.detector}: {channels:.0f} channels, expected 1 to {MAX_CHANNELS}")
        msgspec.structs.force_setattr(self, "counted", counted)

    @classmethod
    def of(cls, detector: str, counts: npt.NDArray[np.float64], **more: object) -> Spectrum:
        """Return the spectrum of `counts`, `(channels,)`."""
        return cls(detector=detector, counted=count_zeroes(counts), **more)  # type: ignore[arg-type]

    @property
    def total(self) -> float:
        """Sum over all channels."""
        zeros = np.flatnonzero(self.counted == 0)
        return float(self.counted.sum() - self.counted[zeros + 1].sum())

    def counts(self) -> npt.NDArray[np.float64]:
        """Return `(channels,) float64`, counts by channel."""
        zeros = np.flatnonzero(self.counted == 0)
        times = np.ones(self.counted.size, np.int64)
        times[zeros] = self.counted[zeros + 1].astype(np.int64)
        times[zeros + 1] = 0
        return np.repeat(self.counted, times)


def count_zeroes(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `(channels,)` counts in counted-zeroes form."""
    zero = counts == 0
    starts = np.flatnonzero(zero & ~np.concatenate(([False], zero[:-1])))
    ends = np.flatnonzero(zero & ~np.concatenate((zero[1:], [False])))
    keep = ~zero
    keep[starts] = True
    kept = np.flatnonzero(keep)
    return np.insert(counts[keep].astype(np.float64), np.searchsorted(kept, starts) + 1, ends - starts + 1)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as the instrument tells it. source : `instrument`, `analysis` or the id of a detector."""

    code: str
    description: str
    severity: str = "Error"
    source: str = "instrument"


class Measurement(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One time slice, or one longer measurement.

    occupied : the occupancy indicator, None where there is none. It, not the class code, tells whether a vehicle was
        there: slices of an occupied portal may well be of class Background
    speed : of the measured item as written; speed_unit : where the file names one
    """

    id: str
    class_code: MeasurementClass = "NotSpecified"
    start_utc_ns: int | None = None
    real_time_s: float | None = None
    gross: tuple[GrossCounts, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    occupied: bool | None = None
    speed: float | None = None
    speed_unit: str = ""
    faults: tuple[Fault, ...] = ()
    groups: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[GrossCounts | Spectrum, ...]:
        """Gross counts, then spectra."""
        return (*self.gross, *self.spectra)


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A radiation alarm.

    category : Neutron, Gamma, Alpha, Beta, Isotope or Other
    detectors : ids
    utc_ns : when it was raised, where that is told
    """

    category: str
    description: str = ""
    light_color: str = ""
    detectors: tuple[str, ...] = ()
    utc_ns: int | None = None


class Nuclide(msgspec.Struct, frozen=True, kw_only=True):
    """A nuclide that an analysis looked for. confidence : a percentage, where told as a number."""

    name: str
    identified: bool | None = None
    confidence: float | None = None
    confidence_text: str = ""
    category: str = ""


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """Results of one analysis, and the measurements, groups or derived data it is of."""

    of: Reference = "group"
    references: tuple[str, ...] = ()
    start_utc_ns: int | None = None
    algorithm: str = ""
    conclusion: str = ""
    alarms: tuple[Alarm, ...] = ()
    nuclides: tuple[Nuclide, ...] = ()
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()


class N42Document(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All that was read of one file.

    derived : data computed from the measurements; counts in them were counted before
    """

    form: Form = "2012"
    uuid: str = ""
    created_utc_ns: int | None = None
    creator: str = ""
    instrument: Instrument = Instrument()
    detectors: tuple[Detector, ...] = ()
    items: tuple[Item, ...] = ()
    windows: tuple[EnergyWindows, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    groups: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    derived: tuple[Measurement, ...] = ()
    analyses: tuple[Analysis, ...] = ()
    remarks: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def counts_lost(self) -> bool:
        """True where the file holds counts or alarms that could not be read."""
        return any(p.counts_lost for p in self.problems)

    @property
    def simulated(self) -> bool:
        """True where the document calls itself simulated."""
        texts = (*self.remarks, *self.instrument.remarks, self.instrument.description)
        return any(t.lstrip().upper().startswith("SIMULATED") for t in texts)
