"""A watched folder: every image file that appears in it and is whole becomes one radiograph.

Where the scanner's system writes sidecars, or an image per energy, the files of one vehicle become one passage
(`passages`, in `joined`).

The folder is polled, because shares of other machines give no notice of changes. A file counts once its size and time
have stayed the same for `stable_s` of this machine's clock and its end is there; names and modification times of other
machines are never compared with the clock here.

Nothing is deleted and nothing overwritten. A file stays where it is until `acknowledge` says that its scan is durably
stored, and goes to `done_dir` then; after a crash it is therefore offered again. A file that cannot be read goes to
`quarantine_dir` with its reason in words beside it, and an analyst learns of it by a `Rejected` event; a marker
`NAME.untold` stays with it until that event is acknowledged, and `open` tells it again.

Source: https://linux.die.net/man/2/rename, open(2) O_EXCL: a name is reserved before a file is moved onto it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import os
import re
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from scanner_io import disk
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import ConfigError, DataError, LinkLost, TruncatedError
from scanner_io.foreign import RASTER, ForeignFiles
from scanner_io.formats.raster import RasterOptions, check_size
from scanner_io.model import DeviceInfo, Event, Health, Kind, LineBlock, Radiograph, Rejected, ScanEnd, ScanStart
from scanner_io.storage import sync_folder
from scanner_io.vendor_record import Role

from .passages import Seen, Signature

BLOCK_COLUMNS = 256
"""Columns in one LineBlock."""
ATTEMPTS = 3
"""A file that the process did not survive reading so many times is not read again."""
READING = ".scanlane-reading"
"""Name in the quarantine folder of the marker that names the file being decoded."""
LAST_UTC_NS = 9_000_000_000_000_000_000
"""Times from here on (year 2255) are nonsense, and would not leave room in 64 bits for a scan."""
GIVE_UP = 10
"""A file that is still changing after so many times `partial_after_s` is reported as one that never completes."""
MOST_PASSED_OVER = 20
"""Names that will never become scans are told so often."""
LONGEST_NAME = 200
"""Bytes of a name kept in done and quarantine: a time and an ending must still fit into the 255 of a file system."""

_TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
_SCANNER_COUNTS = (".ntr", ".rad")
"""Endings of the neutron and gamma records that some image scanners write beside an image; no sample is known."""
_TIME_FIELDS = ("year", "month", "day", "hour", "minute", "second")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder and how its files are read.

    path : the folder; it must exist. Its subfolders are not looked into
    pattern : names that count, as globs, capitals or not
    stable_s : size and time must not have changed for so long; longer than whoever copies may pause, where a file's
        format has no end that can be recognised (.img, .DHE)
    partial_after_s : a file without its end is given up when it has not changed for so long
    poll_s : the folder is listed so often at most
    done_dir, quarantine_dir : where read and unreadable files go; relative to `path`
    must_contain : name of something that is in the folder as long as the share behind it is connected; without it the
        empty mount point of a lost share looks like a quiet lane
    from_name_time : regular expression with groups year, month, day, hour, minute, second (and perhaps fraction) that
        finds the scan's time in the file's name; default: the file's modification time
    name_utc_offset_h : hours by which times in names are ahead of UTC
    pace_s : least time between the beginnings of two scans, so that a backlog does not flood the lane
    passages : what one vehicle leaves. `files`: every image is one; `sidecars`: an XML file of the scanner's system
        lists what belongs together, and a passage is complete when all of it is there; `names`: images whose names
        differ only in their energy
    passage_wait_s : a passage of which nothing has changed for so long is taken with what is there of it
    needed_roles : of listed files, those that a passage waits for (radiograph, preview, optical …); none: all
    energies : name of an energy -> glob of its images, low before high, such as {low = "*_low.png", high = "*_hi.png"}
    sidecar_utc_offset_h : hours by which times without a zone in sidecars are ahead of UTC; without it they tell none
    clock_ahead_s : seconds by which the clock behind sidecars is ahead of the true time
    sandbox : files are read in a process that can do nothing else; `require` refuses to open where this system cannot
        confine one as a whole, `auto` tells it once and reads with the limits that there are
    """

    path: str
    pattern: tuple[str, ...] = ("*.png", "*.jpg", "*.jpeg", "*.tif", "*.tiff")
    stable_s: Seconds = 2.0
    partial_after_s: Seconds = 60.0
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 1.0
    done_dir: str = "done"
    quarantine_dir: str = "quarantine"
    must_contain: str = ""
    from_name_time: str = ""
    name_utc_offset_h: Annotated[float, msgspec.Meta(ge=-24, le=24)] = 0.0
    pace_s: Seconds = 0.0
    passages: Literal["files", "sidecars", "names"] = "files"
    passage_wait_s: Seconds = 120.0
    needed_roles: tuple[Role, ...] = ()
    energies: dict[str, str] = {}
    sidecar_utc_offset_h: Annotated[float, msgspec.Meta(ge=-24, le=24)] | None = None
    clock_ahead_s: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 0.0
    sandbox: Literal["auto", "require"] = "auto"
    vendor: str = "unknown"
    raster: RasterOptions = RasterOptions()

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        folder = Path(self.path)
        places = {folder, folder / self.done_dir, folder / self.quarantine_dir}
        if not self.path or len(places) != 3:
            raise ValueError(f"path {self.path!r}, done_dir and quarantine_dir: expected three different folders")
        if not self.pattern:
            raise ValueError("pattern: empty, expected at least one glob such as *.png")
        if len(self.energies) > 2 or any(not name or not glob for name, glob in self.energies.items()):
            raise ValueError(f"energies: {self.energies}, expected at most two, each with a glob of names")
        if self.passages == "names" and len(self.energies) != 2:
            raise ValueError('energies: passages = "names" needs two, such as {low = "*_low.png", high = "*_high.png"}')
        try:
            groups = re.compile(self.from_name_time).groupindex
        except re.error as error:
            raise ValueError(f"from_name_time: not a regular expression ({error})") from error
        missing = [f for f in _TIME_FIELDS if f not in groups]
        if self.from_name_time and missing:
            raise ValueError(f"from_name_time: no group {', '.join(missing)}; write e.g. (?P<{missing[0]}>\\d\\d)")


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives."""
    return ("radiograph",)


def connect(config: Config, channel: Channel | None = None) -> FileDrop:
    """Return the driver, not opened. It has no channel."""
    if config.passages == "files":
        return FileDrop(config)
    from .joined import PassageDrop

    return PassageDrop(config)


class _Attempt(msgspec.Struct, frozen=True):
    """A file being decoded, for how many times; on disk while it is, so that a decoder that crashes is found out."""

    name: str
    signature: Signature
    number: int


class FileDrop:
    """The driver of a watched folder."""

    pausable = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._folder = Path(config.path)
        self._done = self._folder / config.done_dir
        self._quarantine = self._folder / config.quarantine_dir
        self._own = {config.must_contain, *(p.name for p in (self._done, self._quarantine) if p.parent == self._folder)}
        self._patterns = tuple(p.casefold() for p in config.pattern)
        self._closed = threading.Event()
        self._closed.set()
        self._readers = self._new_readers()
        self._told_confinement = False
        self._device = 0
        self._ready: deque[Event] = deque()
        self._seen: dict[str, Seen] = {}
        self._queue: list[tuple[int, str]] = []
        self._offered: dict[str, dict[str, Signature]] = {}
        self._unmoved: dict[str, Signature] = {}
        self._stuck: dict[str, Signature] = {}
        self._untold: dict[str, Path] = {}
        self._told: set[str] = set()
        self._current = ""
        self._unfinished = _Attempt(name="", signature=(0, 0, 0), number=0)
        self._next_listing_s = 0.0
        self._next_scan_s = 0.0
        self._move_failed = False
        self._passed_over: set[str] = set()

    # ----------------------------------------------------------------------------------------------------------
    # The driver's contract

    def open(self) -> DeviceInfo:
        """Find the folder and prove that files can be put into done and quarantine.

        Raises LinkLost if it is not there or not writable, ConfigError if a file stands in a folder's place or the
        sandbox that is required cannot be had.
        """
        self._abandon()
        self._readers.close()
        self._device = self._check_folder()
        for place in (self._done, self._quarantine):
            _prepare(place)
        self._readers = self._new_readers()
        if self._config.sandbox == "require":
            self._readers.confinement(RASTER)
        self._ready.extend(self._untold_events())
        self._next_listing_s = 0.0
        self._unfinished = self._last_attempt()
        self._closed.clear()
        how = self._config.passages
        return DeviceInfo(
            vendor=self._config.vendor,
            model="file drop" if how == "files" else f"file drop, passages by {how}",
            kinds=kinds(self._config),
            address=_printable(self._config.path),
        )

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event. Raises LinkLost when the folder is gone, after the events of a scan already read."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            if self._closed.is_set():
                raise LinkLost(f"file_drop {_printable(self._folder)}: not open")
            if self._ready:
                return self._next()
            now_s = time.monotonic()
            if now_s >= self._next_listing_s:
                self._list(now_s)
            if self._queue and now_s >= self._next_scan_s:
                self._take(heapq.heappop(self._queue)[1])
            elif not self._ready and not self._wait(deadline_s):
                return None
            if not self._ready and time.monotonic() >= deadline_s:
                return None

    def _next(self) -> Event:
        event = self._ready.popleft()
        if isinstance(event, ScanEnd):
            self._current = ""
        elif isinstance(event, Rejected):
            self._told.add(event.source_ref)
        return event

    def acknowledge(self, source_ref: str) -> None:
        """Move the file behind `source_ref` to done; a name that is not known, or not fully read yet, does nothing.

        A file that was replaced after it was read is another passage, and stays to be read.
        """
        if source_ref in self._untold:
            self._forget(source_ref)
        if source_ref not in self._offered or source_ref == self._current:
            return
        files = self._offered.pop(source_ref)
        self._unmoved.update(files)
        for name in files:
            if not self._retire(name):
                break

    def close(self) -> None:
        """Stop reading. May be called by any thread; all else is left to the thread that reads."""
        self._closed.set()
        self._readers.close()

    def _new_readers(self) -> ForeignFiles:
        return ForeignFiles(require=self._config.sandbox == "require")

    def _abandon(self) -> None:
        """Let go of what was not handed out: a scan not read to its end is offered again, a rejection told again."""
        interrupted, self._current = self._current, ""
        for name in self._offered.pop(interrupted, {}):
            self._seen.pop(name, None)
        self._queue.clear()
        for file in self._seen.values():
            file.settled = False
        self._stuck.clear()
        self._ready.clear()

    # ----------------------------------------------------------------------------------------------------------
    # The folder

    def _check_folder(self) -> int:
        try:
            status = self._folder.stat()
            if self._config.must_contain:
                (self._folder / self._config.must_contain).lstat()
        except (OSError, ValueError) as error:
            raise LinkLost(
                f"file_drop {_printable(self._folder)}: cannot be reached ({error}); check that the share is connected"
            ) from error
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError([f"path: {_printable(self._folder)} is a file, expected a folder"])
        return status.st_dev

    def _list(self, now_s: float) -> None:
        """Look at every file once: those settled since go into the queue, oldest first. Raises LinkLost."""
        if self._check_folder() != self._device:
            raise LinkLost(
                f"file_drop {_printable(self._folder)}: is on another file system than when it was opened; the share "
                "was disconnected or replaced"
            )
        seen: dict[str, Seen] = {}
        busy = self._unmoved | self._stuck
        for files in self._offered.values():
            busy.update(files)
        for name, signature in self._files():
            if busy.get(name) == signature:
                continue
            old = self._seen.get(name)
            if old is None or old.signature != signature:
                first_s = now_s if old is None else old.first_s
                old = Seen(signature=signature, first_s=first_s, since_s=now_s)
            seen[name] = old
        self._seen = seen
        for name in list(self._unmoved):
            if not self._retire(name):
                break
        self._settle(now_s)
        # On a slow share listing may take seconds: it must not take all the time.
        took_s = time.monotonic() - now_s
        self._next_listing_s = time.monotonic() + max(self._config.poll_s, 5 * took_s)

    def _files(self) -> Iterator[tuple[str, Signature]]:
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if self._hidden(entry.name):
                        continue
                    with contextlib.suppress(FileNotFoundError):  # moved away since it was listed
                        if not entry.is_file(follow_symlinks=False):
                            self._pass_over(entry.name, "is no plain file; links and subfolders are not looked into")
                        elif not self._counts(entry.name):
                            self._pass_over(entry.name, self._why_none(entry.name))
                        else:
                            yield entry.name, _signature(entry.stat(follow_symlinks=False))
        except OSError as error:
            raise LinkLost(
                f"file_drop {_printable(self._folder)}: cannot be listed ({error}); check that the share is connected"
            ) from error

    def _why_none(self, name: str) -> str:
        if name.casefold().endswith(_SCANNER_COUNTS):
            return "is the scanner's own neutron or gamma record, of unknown layout: it stays here and is not read"
        return f"matches none of {', '.join(self._config.pattern)}"

    def _hidden(self, name: str) -> bool:
        """Tell whether a name is nobody's scan: hidden, of a copy under way, or one of this driver's own."""
        if name.startswith((".", "~")) or name.casefold().endswith(_TEMPORARY):
            return True
        return name in self._own

    def _counts(self, name: str) -> bool:
        folded = name.casefold()
        return any(fnmatchcase(folded, p) for p in self._patterns)

    def _pass_over(self, name: str, why: str) -> None:
        """Tell once of a name that will never become a scan, so that nobody waits for it; of some, not of thousands."""
        if name in self._passed_over or len(self._passed_over) >= MOST_PASSED_OVER:
            return
        self._passed_over.add(name)
        more = "; more are not told" if len(self._passed_over) == MOST_PASSED_OVER else ""
        self._health("degraded", f"{_printable(name)} is passed over: it {why}{more}")

    def _settle(self, now_s: float) -> None:
        """Queue the files that have come to rest, and give up those that never do."""
        config = self._config
        give_up_s = GIVE_UP * max(config.partial_after_s, config.stable_s)
        for name, file in list(self._seen.items()):
            unchanged_s, age_s = now_s - file.since_s, now_s - file.first_s
            if file.problem and unchanged_s >= config.partial_after_s:
                file.problem = ""  # one last look: some shares tell a new size or time late
                heapq.heappush(self._queue, (file.signature[1], name))
            elif age_s >= give_up_s > 0 and (file.problem or unchanged_s < config.stable_s):
                self._reject(name, f"still changing after {age_s:.0f} s: {file.problem or 'it was never stable'}")
            elif unchanged_s >= config.stable_s and not file.settled:
                file.settled = True
                heapq.heappush(self._queue, (file.signature[1], name))

    def _wait(self, deadline_s: float) -> bool:
        """Wait for the next thing to do; False at the deadline. Ends early when another thread closes the driver."""
        now_s = time.monotonic()
        due_s = min(self._next_listing_s, self._next_scan_s if self._queue else self._next_listing_s)
        self._closed.wait(max(0.0, min(due_s, deadline_s) - now_s))
        return time.monotonic() < deadline_s

    # ----------------------------------------------------------------------------------------------------------
    # One file

    def _take(self, name: str) -> None:
        """Read one settled file and make its events, or learn why not."""
        file = self._seen.get(name)
        if file is None or not file.settled:  # gone, given up, or changed since it was queued
            return
        contents = None
        try:
            contents = self._contents(name, file)
            if contents is None:
                return
            radiograph, sha256 = self._decode(name, file, contents)
        except TruncatedError as error:
            file.problem = str(error)
            unchanged_s = time.monotonic() - file.since_s
            if unchanged_s >= self._config.partial_after_s:
                self._reject(name, f"incomplete, unchanged for {unchanged_s:.0f} s: {error}", contents)
            return
        except DataError as error:
            self._reject(name, str(error), contents)
            return
        except Exception as error:
            if isinstance(error, LinkLost):
                raise
            # One file must not stop the lane for all behind it, whatever is wrong with it or with the reader.
            self._reject(name, f"{_printable(name)}: the reader failed ({type(error).__name__}: {error})", contents)
            return
        self._next_scan_s = time.monotonic() + self._config.pace_s
        source_ref = f"{_printable(name)}@{sha256[:16]}"
        del self._seen[name]
        self._offered[source_ref] = {name: file.signature}
        self._current = source_ref
        self._ready.extend(_events(radiograph, source_ref, _printable(self._folder / name), sha256))

    def _decode(
        self, name: str, file: Seen, contents: bytes, start: tuple[int, str] | None = None
    ) -> tuple[Radiograph, str]:  # fmt: skip
        """Return the radiograph and the file's hash. Raises DataError.

        start : time of the first column and where it comes from; without it as the file tells
        """
        tried = 0
        if (self._unfinished.name, self._unfinished.signature) == (_printable(name), file.signature):
            tried = self._unfinished.number
        if tried >= ATTEMPTS:
            raise DataError(f"{_printable(name)}: reading it ended the process {tried} times; look at it elsewhere")
        marker = self._quarantine / READING
        attempt = _Attempt(name=_printable(name), signature=file.signature, number=tried + 1)
        with contextlib.suppress(OSError):  # without the marker a crash is merely not counted
            _mark(marker, msgspec.json.encode(attempt))
        try:
            self._tell_confinement()
            start_utc_ns, how = start or self._start(name, file)
            radiograph, provenance = self._readers.raster(
                contents, name=_printable(name), start_utc_ns=start_utc_ns, start_how=how, options=self._config.raster
            )
        finally:
            with contextlib.suppress(OSError):
                disk.io().unlink(marker)
        return radiograph, provenance.sha256

    def _tell_confinement(self) -> None:
        """Tell once if readers are less confined here than they should be. Raises LinkLost if there can be none."""
        if not self._told_confinement:
            held = self._readers.confinement(RASTER)
            self._told_confinement = True
            if not held.whole:
                self._health("degraded", f"files are read in a sandbox with gaps: {held}")

    def _last_attempt(self) -> _Attempt:
        with contextlib.suppress(OSError, msgspec.DecodeError):  # there is none, which is the usual case
            return msgspec.json.decode((self._quarantine / READING).read_bytes(), type=_Attempt)
        return _Attempt(name="", signature=(0, 0, 0), number=0)

    def _contents(self, name: str, file: Seen) -> bytes | None:
        """Return the bytes of a file, or None if it has changed or gone. Raises DataError."""
        try:
            # No link is followed, and a pipe put in a file's place does not block.
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            del self._seen[name]
            return None
        except OSError as error:
            if error.errno in (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT):
                raise LinkLost(f"file_drop {_printable(self._folder)}: {error}; check the share") from error
            raise TruncatedError(f"{_printable(name)}: cannot be opened ({error}); check its rights") from error
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(handle)
            if _signature(status) != file.signature or not stat.S_ISREG(status.st_mode):
                del self._seen[name]  # the next listing sees it as a new file
                return None
            check_size(status.st_size, _printable(name), self._config.raster)
            try:
                contents = stream.read()
            except OSError as error:
                raise TruncatedError(f"{_printable(name)}: cannot be read ({error})") from error
            if _signature(os.fstat(handle)) != file.signature:
                del self._seen[name]
                return None
        self.tap("file", name, contents)
        return contents

    def _start(self, name: str, file: Seen) -> tuple[int, str]:
        """Return the time of the first column and where it comes from."""
        start_utc_ns, how = file.signature[1], "file modification time"
        if self._config.from_name_time:
            how += ", the name tells none"
            found = re.search(self._config.from_name_time, name)
            if found is not None:
                with contextlib.suppress(ValueError, OverflowError):  # digits that are no date: `how` says so
                    start_utc_ns, how = _time_of(found, self._config.name_utc_offset_h), "from the file name"
        if not 0 <= start_utc_ns < LAST_UTC_NS:
            start_utc_ns, how = time.time_ns(), f"when it was read, because {start_utc_ns} ns ({how}) is no time"
        return start_utc_ns, how

    # ----------------------------------------------------------------------------------------------------------
    # Putting files away

    def _retire(self, name: str) -> bool:
        """Move a stored file to done; False if that fails now: the next listing tries again."""
        try:
            if self._is_there(name) and _signature((self._folder / name).lstat()) == self._unmoved[name]:
                self._put_away(name)
        except (OSError, LinkLost) as error:
            if not self._move_failed:
                self._health("degraded", f"stored files cannot be moved to {_printable(self._done)} ({error})")
            self._move_failed = True
            return False
        del self._unmoved[name]
        if self._move_failed:
            self._health("ok", f"stored files can be moved to {_printable(self._done)} again")
        self._move_failed = False
        return True

    def _put_away(self, name: str) -> None:
        """Put a stored file where it belongs. Raises OSError."""
        _file_away(self._folder / name, self._done, name)

    def _is_there(self, name: str) -> bool:
        """Tell whether the file is still there. Raises LinkLost if it is the share that is gone."""
        if os.path.lexists(self._folder / name):
            return True
        if self._check_folder() != self._device:
            raise LinkLost(f"file_drop {_printable(self._folder)}: the share was disconnected")
        return False

    def _health(self, state: Literal["ok", "degraded"], text: str) -> None:
        self._ready.append(Health(utc_ns=time.time_ns(), component="file_drop", state=state, text=text))

    def _reject(self, name: str, reason: str, contents: bytes | None = None) -> None:
        """Put a file that cannot be read into quarantine and tell of it."""
        file = self._seen.pop(name)
        event = Rejected(
            source_ref=f"{_printable(name)}@rejected-{time.time_ns()}",
            utc_ns=self._start(name, file)[0],  # that of the passage, so that it joins what else was seen of it
            reason=_plain(reason),
            source=_printable(self._folder / name),
            source_sha256="" if contents is None else hashlib.sha256(contents).hexdigest(),
        )
        try:
            event = self._put_to_quarantine(name, event)
        except OSError as error:
            if not os.path.lexists(self._folder / name):
                return  # taken away meanwhile; if it was the share that went, it is seen again when that is back
            # Told all the same; the file stays, and is not told of again before it changes or the driver is opened.
            self._stuck[name] = file.signature
            event = msgspec.structs.replace(
                event, reason=f"{event.reason}; could not be put away ({_plain(str(error))})"
            )
        self._ready.append(event)

    def _put_to_quarantine(self, name: str, event: Rejected) -> Rejected:
        """Move the file; its reason and the marker are on disk before, so that no crash leaves it there unexplained."""
        target = _reserve(self._quarantine, name, beside=(".reason.txt", ".untold"))
        event = msgspec.structs.replace(event, reason=f"{event.reason}; kept as {_printable(target)}")
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{event.reason}\n\nsource: {event.source}\nsha256: {event.source_sha256}\nrejected: {moment}\n"
        reason, marker = _beside(target, ".reason.txt"), _beside(target, ".untold")
        try:
            _write(reason, text.encode())
            _write(marker, msgspec.json.encode(event))
            _move(self._folder / name, target)
        except OSError:
            for made in (reason, marker):
                _take_away(made)
            raise
        self._untold[event.source_ref] = marker
        return event

    def _forget(self, source_ref: str) -> None:
        """Take away the marker of a rejection that is stored."""
        try:
            _take_away(self._untold[source_ref])
        except OSError as error:  # it is told once more after the next start: better twice than never
            self._health("degraded", f"marker of a stored rejection cannot be removed ({error})")
        del self._untold[source_ref]
        self._told.discard(source_ref)

    def _untold_events(self) -> list[Rejected]:
        """Return the rejections that were put to quarantine and never acknowledged, oldest first."""
        events: list[Rejected] = []
        for marker in self._quarantine.glob("*.untold"):
            try:
                event = msgspec.json.decode(marker.read_bytes(), type=Rejected)
            except (OSError, msgspec.DecodeError) as error:
                event = Rejected(
                    source_ref=f"{_printable(marker.name)}@rejected",
                    utc_ns=time.time_ns(),
                    reason=f"{_printable(marker)}: marks a file in quarantine, cannot be read ({_plain(str(error))})",
                )
            self._untold[event.source_ref] = marker
            if event.source_ref not in self._told:
                events.append(event)
        return sorted(events, key=lambda e: e.utc_ns)


def _events(radiograph: Radiograph, source_ref: str, source: str, sha256: str) -> Iterator[Event]:
    times = radiograph.column_utc_ns
    yield ScanStart(
        source_ref=source_ref,
        utc_ns=int(times[0]),
        detector=radiograph.detector,
        source=source,
        source_sha256=sha256,
    )
    for first in range(0, radiograph.columns, BLOCK_COLUMNS):
        part = slice(first, first + BLOCK_COLUMNS)
        counts = tuple(c[part] for c in radiograph.counts)
        yield LineBlock(source_ref=source_ref, first_column=first, counts=counts, column_utc_ns=times[part])
    yield ScanEnd(source_ref=source_ref, utc_ns=int(times[-1]))


def _signature(status: os.stat_result) -> Signature:
    """Return what changes when a file is written or replaced: size, modification time, file number."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def _time_of(found: re.Match[str], offset_h: float) -> int:
    """Return the UTC nanoseconds that a name tells. Raises ValueError, OverflowError if its digits are no date."""
    if missing := [field for field in _TIME_FIELDS if found[field] is None]:
        raise ValueError(f"the name tells no {missing[0]}")
    year, month, day, hour, minute, second = (int(found[field]) for field in _TIME_FIELDS)
    year += 2000 if len(found["year"]) == 2 else 0
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - timedelta(hours=offset_h)
    fraction = (found.groupdict().get("fraction") or "0")[:9]
    whole_s = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return whole_s * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _plain(text: str) -> str:
    """Return `text` on one line, fit for logs and JSON: a file name may hold line breaks and bytes that are no text."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def _printable(path: Path | str) -> str:
    """Return a path as `_plain` text, different for different paths."""
    return _plain(str(path).replace("\\", "\\\\"))


def _prepare(place: Path) -> None:
    """Make the folder `place` if it is not there, and prove that it can be written to."""
    probe = place / f".scanlane-{os.getpid()}.probe"
    try:
        _make(place)
        _write(probe, b"")
        disk.io().unlink(probe)
    except (FileExistsError, NotADirectoryError) as error:
        if probe.exists():  # left by a process of the same number that was killed in this very place
            disk.io().unlink(probe)
            return
        raise ConfigError([f"file_drop {_printable(place)}: is not a folder; move it away"]) from error
    except (OSError, ValueError) as error:
        raise LinkLost(
            f"file_drop {_printable(place)}: cannot be written to ({error}); give the service the right to create and "
            "rename files there"
        ) from error


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _reserve(place: Path, name: str, beside: tuple[str, ...] = ()) -> Path:
    """Return a path in `place` that is now an empty file of ours: `name`, with the time in it where that is taken."""
    path = Path(name)
    stem, suffix = path.stem, path.suffix
    while len(os.fsencode(stem + suffix)) > LONGEST_NAME:
        stem, suffix = (stem[:-1], suffix) if stem else (suffix[:LONGEST_NAME], "")
    candidate = place / (stem + suffix)
    _make(place)  # somebody may have tidied it away since the driver was opened
    while True:
        try:
            if not any(os.path.lexists(_beside(candidate, ending)) for ending in beside):
                os.close(disk.io().open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                return candidate
        except FileExistsError:
            pass
        # The time, not a number to count up: the ten-thousandth file of one name must not try ten thousand names.
        candidate = place / f"{stem}.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z{suffix}"


def _make(place: Path) -> None:
    if not place.is_dir():
        disk.io().mkdir(place)


def _take_away(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        disk.io().unlink(path)


def _mark(path: Path, contents: bytes) -> None:
    """Write a marker that need not outlive a power cut."""
    descriptor = disk.io().open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        disk.write_all(descriptor, contents)
    finally:
        os.close(descriptor)


def _write(path: Path, contents: bytes) -> None:
    """Write a new file durably. Raises FileExistsError if there is one."""
    descriptor = disk.io().open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        disk.write_all(descriptor, contents)
        disk.io().sync(descriptor)
    finally:
        os.close(descriptor)


def _file_away(source: Path, place: Path, name: str) -> None:
    """Move a stored file into `place` without a place-holder where hard links are possible. Raises OSError.

    A kill between the two steps leaves two names of one file, and the next attempt sees that; a reserved name would be
    left behind as an empty file, and the file itself would get another name.
    """
    _make(place)
    target = place / name
    try:
        disk.io().link(source, target)
    except OSError:  # the name is taken, another file system, or one without hard links
        if not (os.path.lexists(target) and os.path.samestat(source.lstat(), target.lstat())):
            _move(source, _reserve(place, name))
            return
    disk.io().unlink(source)


def _move(source: Path, target: Path) -> None:
    """Move `source` onto `target`, which is reserved; on another file system by a durable copy. Raises OSError."""
    try:
        try:
            disk.io().rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
    except OSError:
        # Only our own empty place-holder is taken away: a server whose answer was lost may have moved it after all.
        with contextlib.suppress(FileNotFoundError):
            if target.stat().st_size == 0:
                disk.io().unlink(target)
        raise


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    _take_away(part)  # of a copy that was cut short
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as original:
            copy = disk.io().open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                while piece := original.read(1 << 20):
                    disk.write_all(copy, piece)
                disk.io().sync(copy)
            finally:
                os.close(copy)
        shutil.copystat(source, part)
        disk.io().rename(part, target)
        sync_folder(target.parent)
        _take_away(source)
    except OSError:
        _take_away(part)
        if os.path.lexists(source) and target.exists():
            _empty(target)  # still where it was: an attempt that is repeated must not fill the disk
        raise


def _empty(path: Path) -> None:
    descriptor = disk.io().open(path, os.O_WRONLY)
    try:
        disk.io().truncate(descriptor, 0)
    finally:
        os.close(descriptor)
