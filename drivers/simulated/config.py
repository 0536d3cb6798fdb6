"""What a simulated lane can be told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from scanner_io.model import NANOSECONDS

from .cargo import KINDS

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
    cargo : kind -> weight in the draw; empty = all kinds alike, empty containers twice
    threat_share : vehicles with something that does not belong
    source_share, norm_share, neutron_share : vehicles with a gamma source, a naturally radioactive load, a neutron
        source
    misdeclared_share : declarations that contradict the load
    link_loss_share, dead_channel_share, beam_off_share, missing_gx_share : vehicles with such a fault
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
    radiograph: bool = True
    portal: bool = True
    declarations: bool = True
    cargo: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    threat_share: Share = 0.1
    source_share: Share = 0.03
    norm_share: Share = 0.05
    neutron_share: Share = 0.01
    misdeclared_share: Share = 0.03
    link_loss_share: Share = 0.0
    dead_channel_share: Share = 0.0
    beam_off_share: Share = 0.0
    missing_gx_share: Share = 0.0
    nsigma: Annotated[float, msgspec.Meta(gt=0, le=100)] = 5.0
    start_utc: str = "2026-01-05T06:00:00Z"
    live: bool = False

    def __post_init__(self) -> None:
        """Check what one field alone cannot tell. Raises ValueError."""
        if not (self.radiograph or self.portal or self.declarations):
            raise ValueError("radiograph, portal, declarations: all false, expected at least one device in the lane")
        unknown = sorted(set(self.cargo) - set(KINDS))
        if unknown:
            raise ValueError(f"cargo: unknown kinds {', '.join(unknown)}, expected some of {', '.join(KINDS)}")
        if self.cargo and not sum(self.cargo.values()) > 0:
            raise ValueError(f"cargo: all weights are 0, expected one above 0 among {', '.join(KINDS)}")
        try:
            instant = datetime.fromisoformat(self.start_utc)
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None:
            raise ValueError(f"start_utc: {self.start_utc!r}, expected ISO 8601 with a zone, e.g. 2026-01-05T06:00:00Z")

    @property
    def slot_ns(self) -> int:
        """Time from one vehicle to the next."""
        return int((PASSAGE_S + self.interval_s) * NANOSECONDS)

    def slot_start_ns(self, index: int) -> int:
        """Return the instant at which the time of vehicle `index` begins, unless the lane is live."""
        return int(datetime.fromisoformat(self.start_utc).timestamp() * 1000) * 1_000_000 + index * self.slot_ns
