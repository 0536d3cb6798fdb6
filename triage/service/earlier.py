"""Earlier scans of the same container in an archive of recordings: what `scanlane triage --previous` compares with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scanner_io.foreign import ForeignFiles
from scanner_io.model import Radiograph, Scan


class EarlierScans:
    """Recordings by the container numbers of their papers or sidecars.

    Every recording is read once to learn its number, and again when it is compared with: an archive of some hundreds
    is meant, not a port's.
    """

    def __init__(self, files: Iterable[Path], readers: ForeignFiles) -> None:
        """Read the numbers. Raises DataError for a file that is no recording."""
        self._by_number: dict[str, list[tuple[int, Path]]] = {}
        for path in files:
            scan = readers.recording(path).scan
            if scan.radiograph is not None:
                for number in scan.container_numbers:
                    self._by_number.setdefault(number, []).append((scan.start_utc_ns, path))

    def of(self, scan: Scan, readers: ForeignFiles) -> Radiograph | None:
        """Return the last radiograph before this scan of the one container that it is known to carry; None without."""
        if len(scan.container_numbers) != 1:
            return None
        known = self._by_number.get(scan.container_numbers[0], [])
        before = [entry for entry in known if entry[0] < scan.start_utc_ns]
        return readers.recording(max(before)[1]).scan.radiograph if before else None
