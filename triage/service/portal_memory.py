"""What a lane keeps of its portals beyond its own end: where their counts stood, and which passages are on no disk yet.

One JSON file per lane, `lanes/LANE.json` in the state folder, exchanged durably when a passage begins and when its
recording is stored. A lane that is killed in the middle of a passage loses the counts that were only in its memory; by
this file the next process knows that a vehicle passed, tells it as a scan of its own without counts, and gives the
driver the portal's last number, so that the passages counted meanwhile are missed by name.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from scanner_io.errors import DataError
from scanner_io.model import Occupancy, PortalCount, PortalRecord
from scanner_io.storage import make_folder, write_durable


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that began and is not stored yet."""

    source_ref: str
    start_utc_ns: int
    simulated: bool = False


class _Portal(msgspec.Struct, frozen=True, kw_only=True):
    """One portal. device : driver and address; another one at its place in the configuration is another portal."""

    device: str
    count: PortalCount | None = None
    begun: tuple[Begun, ...] = ()


class PortalMemory:
    """The file of one lane; changed by one thread, and read by any (`count_of`)."""

    def __init__(self, path: Path, devices: list[str]) -> None:
        """Read what an earlier process left. Raises DataError if the file cannot be read; it is then as if empty.

        devices : driver and address of the lane's devices, in their order
        """
        self._path = path
        self._portals = {n: _Portal(device=device) for n, device in enumerate(devices)}
        self._ended: dict[tuple[int, str], PortalCount] = {}
        if path.exists():
            kept = _read(path)
            self._portals |= {n: kept[p.device] for n, p in self._portals.items() if p.device in kept}

    def count_of(self, number: int) -> PortalCount | None:
        """Return where the count of device `number` stood at its last stored passage."""
        return self._portals[number].count

    def begun(self, number: int) -> tuple[Begun, ...]:
        """Return the passages of device `number` that are not known to be stored."""
        return self._portals[number].begun

    def take(self, number: int, event: Occupancy) -> None:
        """Learn that a passage began, or what its number is. Raises StorageError."""
        portal = self._portals[number]
        if event.phase == "entered":
            one = Begun(source_ref=event.source_ref, start_utc_ns=event.utc_ns, simulated=event.simulated)
            self._keep(number, msgspec.structs.replace(portal, begun=(*portal.begun, one)))
        elif event.record is not None:
            self.ended(number, event.source_ref, event.record)

    def ended(self, number: int, source_ref: str, record: PortalRecord) -> None:
        """Learn the number of a passage. Only when it is stored the count moves: a lost one is missing in it."""
        if record.number is not None:
            self._ended[number, source_ref] = PortalCount(boot_epoch=record.boot_epoch, number=record.number)

    def stored(self, number: int, source_ref: str) -> None:
        """Learn that the passage is on the disk. Raises StorageError."""
        portal = self._portals[number]
        count = self._ended.pop((number, source_ref), portal.count)
        begun = tuple(b for b in portal.begun if b.source_ref != source_ref)
        if (count, begun) != (portal.count, portal.begun):
            self._keep(number, msgspec.structs.replace(portal, count=count, begun=begun))

    def _keep(self, number: int, portal: _Portal) -> None:
        self._portals[number] = portal
        make_folder(self._path.parent)
        told = [p for p in self._portals.values() if p.count is not None or p.begun]
        write_durable(self._path, msgspec.json.encode(told), replace=True)


def _read(path: Path) -> dict[str, _Portal]:
    try:
        return {p.device: p for p in msgspec.json.decode(path.read_bytes(), type=list[_Portal])}
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); what the lane had open when it ended is not known, see the passages' "
            "numbers"
        ) from error
