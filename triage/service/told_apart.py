"""Passages of live devices that are not what they are said to be: another one under a number that was given, and the
image of an earlier one.

A counter or clock that stands gives two vehicles one name; a frame grabber that stands gives two vehicles one picture.
The first would be taken for a scan that is stored already, the second for a vehicle that is as clear as the one before.
Files and recordings are not asked: what is offered again after a crash has the name of its content.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import msgspec

from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.model import Quality, Scan

REMEMBERED = 64
"""Images: a frame that is held for longer is told 64 times, and by then somebody looks."""


class ToldApart:
    """Remembers the last images of one lane, by the hashes of their counts."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, str] = OrderedDict()
        """Hash of the counts -> scan that had them first."""

    def flagged(self, scan: Scan, stored: Path) -> Scan:
        """Return the scan as it is to be recorded; itself where nothing is wrong. The same again if asked again.

        stored : where its recording belongs; there may be one
        """
        image = "" if scan.radiograph is None else recording.pixels_hash(scan.radiograph)
        found: list[Quality] = []
        if (before := _content(stored)) is not None and before != (content := _content_of(scan, image)):
            digest = hashlib.blake2b(f"{scan.scan_id} {content}".encode(), digest_size=4).hexdigest()
            reason = (
                f"another passage came under the number and time of {scan.scan_id}, which is stored: this one is kept "
                "beside it; check the device's counter and clock"
            )
            found.append(Quality(code="number_given_before", reason=reason))
            scan = msgspec.structs.replace(scan, scan_id=f"{scan.scan_id.rpartition('-')[0]}-{digest}")
        if image:
            first = self._images.setdefault(image, scan.scan_id)
            self._images.move_to_end(image)
            if len(self._images) > REMEMBERED:
                self._images.popitem(last=False)
            if first != scan.scan_id:
                reason = (
                    f"every count of the image is that of {first}: it was not measured on this vehicle; check whether "
                    "the detector's frame grabber stands"
                )
                found.append(Quality(code="image_given_before", reason=reason))
        return msgspec.structs.replace(scan, quality=scan.quality + tuple(found)) if found else scan


def _content(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return what a recording holds of image and portal; None without one, or one that is damaged (told elsewhere)."""
    if not path.exists():
        return None
    try:
        scan = recording.read(path).scan
    except DataError:
        return None
    return _content_of(scan, "" if scan.radiograph is None else recording.pixels_hash(scan.radiograph))


def _content_of(scan: Scan, image: str) -> tuple[str, tuple[str, ...]]:
    return image, () if scan.portal is None else scan.portal.raw_lines
