"""Rapiscan/TSA radiation portal monitors over TCP or a serial line.

The portal is the TCP server: it pushes lines to every client and takes no request. Simulators listen on 1600
(RPM-Simulator) or from 1601 upwards (SRLS). What the lines mean stands in `scanner_io.formats.portal_daily`.

Wire lines carry no time stamp, so a record's times are those of arrival, and its gamma times are rebuilt by sample
index on the nominal 0.2 s.

Source: RPM-Simulator (Rapiscan Labs, 2016); SRLS (Sandia lane simulator); OSCAR.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from scanner_io.channel import Channel, open_channel
from scanner_io.driver import LinkDriver
from scanner_io.errors import ConfigError
from scanner_io.formats.portal_daily import PortalDecoder
from scanner_io.model import DeviceInfo, Kind


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One portal.

    address : tcp://HOST:PORT or serial:///dev/NAME?baud=9600
    silence_s : no byte for so long means the link is gone; a vacant portal speaks every 5 s
    occupancy_timeout_s : a passage without a count line for so long has ended; the longest real gap is 0.53 s
    detectors : count fields of a line: master lower, master upper, slave lower, slave upper
    serial : the portal's serial number, where the site wants it in its records
    simulated : it is a simulated portal; one that sends its set-up says so itself, to every client
    """

    address: str
    silence_s: Annotated[float, Meta(ge=6.0, le=3600.0)] = 30.0
    occupancy_timeout_s: Annotated[float, Meta(ge=1.0, le=60.0)] = 4.0
    detectors: Annotated[int, Meta(ge=1, le=16)] = 4
    serial: str = ""
    simulated: bool = False

    def __post_init__(self) -> None:
        """Check what a type cannot say. Raises ValueError, which the configuration reader turns into its place."""
        try:
            open_channel(self.address)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.occupancy_timeout_s >= self.silence_s:
            raise ValueError(
                f"occupancy_timeout_s {self.occupancy_timeout_s:g}, expected below silence_s {self.silence_s:g}: "
                "a passage times out before its link is given up"
            )


class Decoder(PortalDecoder):
    """The portal codec with the settings of one Config."""

    def __init__(self, config: Config) -> None:
        # Told as Health before the link is given up; two missed background lines are 10 s.
        super().__init__(
            timeout_s=config.occupancy_timeout_s,
            silence_s=min(12.0, 0.8 * config.silence_s),
            detectors=config.detectors,
        )


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives, without touching the portal."""
    return ("portal",)


def connect(config: Config, channel: Channel | None) -> LinkDriver:
    """Return an unopened driver on `channel`, or on a channel of its own where none is given. Raises ConfigError."""
    info = DeviceInfo(
        vendor="Rapiscan",
        model="TSA portal",
        kinds=kinds(config),
        serial=config.serial,
        address=config.address,
        simulated=config.simulated,
        note="SIMULATED: by the configuration" if config.simulated else "",
    )
    return LinkDriver(channel or open_channel(config.address), Decoder(config), info, config.silence_s)
