"""What a simulated lane can be told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from scanner_io.model import NANOSECONDS

from .cargo import KINDS
from .carriers import CAB_MM, CARRIERS
from .scene import SOURCE_DISTANCE_MM, SOURCE_HEIGHT_MM, SPAN_MM
from .threats import THREATS

PASSAGE_S = 24.0
"""Room in time for one vehicle, from the portal's first line to its last; the slowest needs 21 s."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of a simulated lane.

    seed : the same seed and configuration give the same vehicles, byte for byte
    vehicles : how many come; none = endless
    speed : pace against real time, 0 = as fast as they can be made
    interval_s : quiet time between two passages
    columns, channels : size of a radiograph
    energies : 1 (high only) or 2 (low and high, registered)
    beam : accelerator energies in MV, low/high
    quanta : detected photons per pixel and pulse in air at the high energy
    radiograph, portal, declarations : which devices the lane has
    cameras : cameras read container numbers and plates, by which declarations are found that came in advance
    misread_share : of these, readings with a wrong or lost character
    delay_s : the first vehicle comes so long after the lane was opened
    pulse_sd : standard deviation of the source's output from pulse to pulse
    scatter : share of the rays of a column that reaches other channels of it
    source_distance_mm, source_height_mm : of the source from the middle of the vehicle, and above ground
    bits : of the converter, 8 to 16
    display : grey values as a vendor shows and archives them, air white, instead of raw counts
    speed_variation : standard deviation of the vehicle's speed within one scan, relative; the lane's clock knows
        nothing of it, so the picture is stretched and squeezed
    carriers : kind of vehicle -> weight; empty = semi-trailers with one container
    scan_cab : the beam is on for the tractor's cab too; the scan is longer by it
    rear_first_share : vehicles that are scanned rear first, with the doors on the left of the picture
    turned_share : containers with their doors to the cab
    cargo : kind -> weight in the draw; empty = all kinds alike, empty containers twice
    threat_share : vehicles with something that does not belong
    threats : kind of threat -> weight; empty = all alike
    source_share, norm_share, neutron_share : vehicles with a gamma source, a naturally radioactive load, a neutron
        source
    misdeclared_share : declarations that contradict the load
    link_loss_share, dead_channel_share, beam_off_share, missing_gx_share : vehicles with such a fault
    drifting_channel_share : scans in which some channels' gain drifts by up to a tenth, none of them listed as bad
    stop_share : vehicles that stop in the beam and go on
    nsigma : the simulated portal's alarm setting
    start_utc : instant of the first vehicle, ISO 8601
    live : stamp every passage with the time of day instead
    """

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 1
    vehicles: Annotated[int, msgspec.Meta(ge=1)] | None = None
    speed: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    interval_s: Annotated[float, msgspec.Meta(ge=10, le=86_400)] = 20.0
    columns: Annotated[int, msgspec.Meta(ge=64, le=5000)] = 1200
    channels: Annotated[int, msgspec.Meta(ge=64, le=2000)] = 576
    energies: Annotated[int, msgspec.Meta(ge=1, le=2)] = 2
    beam: Literal["6/9", "4/6"] = "6/9"
    quanta: Annotated[float, msgspec.Meta(ge=100, le=1e6)] = 20_000.0
    pulse_sd: Annotated[float, msgspec.Meta(ge=0, le=0.2)] = 0.012
    scatter: Annotated[float, msgspec.Meta(ge=0, le=0.2)] = 0.004
    source_distance_mm: Annotated[float, msgspec.Meta(ge=3500, le=15_000)] = SOURCE_DISTANCE_MM
    source_height_mm: Annotated[float, msgspec.Meta(ge=0, le=3000)] = SOURCE_HEIGHT_MM
    bits: Annotated[int, msgspec.Meta(ge=8, le=16)] = 16
    display: bool = False
    speed_variation: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    carriers: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    scan_cab: bool = False
    rear_first_share: Share = 0.0
    turned_share: Share = 0.0
    radiograph: bool = True
    portal: bool = True
    declarations: bool = True
    cameras: bool = False
    misread_share: Share = 0.1
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    cargo: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    threat_share: Share = 0.1
    threats: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    source_share: Share = 0.03
    norm_share: Share = 0.05
    neutron_share: Share = 0.01
    misdeclared_share: Share = 0.03
    link_loss_share: Share = 0.0
    dead_channel_share: Share = 0.0
    beam_off_share: Share = 0.0
    missing_gx_share: Share = 0.0
    drifting_channel_share: Share = 0.0
    stop_share: Share = 0.0
    nsigma: Annotated[float, msgspec.Meta(gt=0, le=100)] = 5.0
    start_utc: str = "2026-01-05T06:00:00Z"
    live: bool = False

    def __post_init__(self) -> None:
        """Check what one field alone cannot tell. Raises ValueError."""
        if not (self.radiograph or self.portal or self.declarations):
            raise ValueError("radiograph, portal, declarations: all false, expected at least one device in the lane")
        for field, kinds in (("cargo", KINDS), ("threats", THREATS), ("carriers", CARRIERS)):
            _check_weights(field, getattr(self, field), kinds)
        if self.display and self.energies != 1:
            raise ValueError("energies: 2, expected 1 with display: a vendor's windowed picture has one")
        try:
            instant = datetime.fromisoformat(self.start_utc)
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None:
            raise ValueError(f"start_utc: {self.start_utc!r}, expected ISO 8601 with a zone, e.g. 2026-01-05T06:00:00Z")

    @property
    def span_mm(self) -> float:
        """Length of a scan in the object plane."""
        return SPAN_MM + (CAB_MM if self.scan_cab else 0.0)

    @property
    def slot_ns(self) -> int:
        """Time from one vehicle to the next."""
        return int((PASSAGE_S + self.interval_s) * NANOSECONDS)

    def slot_start_ns(self, index: int) -> int:
        """Return the instant at which the time of vehicle `index` begins, unless the lane is live."""
        return int(datetime.fromisoformat(self.start_utc).timestamp() * 1000) * 1_000_000 + index * self.slot_ns


def _check_weights(field: str, weights: dict[str, float], kinds: Iterable[str]) -> None:
    """Raise ValueError unless the weights are of known kinds and one is above 0; none at all are all kinds."""
    unknown = sorted(set(weights) - set(kinds))
    if unknown:
        raise ValueError(f"{field}: unknown kinds {', '.join(unknown)}, expected some of {', '.join(kinds)}")
    if weights and not sum(weights.values()) > 0:
        raise ValueError(f"{field}: all weights are 0, expected one above 0 among {', '.join(kinds)}")
