"""What is taken from a DICOM file: an image as a radiograph or a threat report, and what it says of itself."""

from __future__ import annotations

import msgspec

from ..model import Radiograph
from ..vendor_record import Sidecar
from .raster import RasterOptions

STORED = {
    "DX for presentation": "1.2.840.10008.5.1.4.1.1.1.1",
    "DX for processing": "1.2.840.10008.5.1.4.1.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "secondary capture": "1.2.840.10008.5.1.4.1.1.7",
    "secondary capture, grey byte": "1.2.840.10008.5.1.4.1.1.7.2",
    "secondary capture, grey word": "1.2.840.10008.5.1.4.1.1.7.3",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "DICOS CT": "1.2.840.10008.5.1.4.1.1.501.1",
    "DICOS DX for presentation": "1.2.840.10008.5.1.4.1.1.501.2.1",
    "DICOS DX for processing": "1.2.840.10008.5.1.4.1.1.501.2.2",
    "DICOS threat detection report": "1.2.840.10008.5.1.4.1.1.501.3",
}
"""Storage SOP classes that are taken, by what they are."""


class DicomAsk(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is read. received_utc_ns : its time, where it tells none; utc_offset_h : of times without a zone."""

    options: RasterOptions
    received_utc_ns: int
    utc_offset_h: float | None = None


class DicomObject(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A DICOM file, read.

    study, series, instance, sop_class : unique identifiers
    energy : told by KVP, "" where it tells none
    sidecar : what it says of the passage; radiograph : None for a report
    """

    study: str
    series: str
    instance: str
    sop_class: str
    start_utc_ns: int
    sidecar: Sidecar
    radiograph: Radiograph | None = None
    energy: str = ""
    sha256: str = ""
