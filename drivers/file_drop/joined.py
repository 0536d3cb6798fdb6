"""A watched folder whose files belong together: sidecar, images, snapshots, counts of one vehicle are one passage.

A passage is complete when everything is there, at rest and whole that its sidecar lists; after a stated wait it is
taken with what there is, and says what is missing. Files that come again are known by their content and filed away;
files that come late to a passage that was given go to it, an image as a passage of its own with the same sidecar. What
was given is written to `done` when it is stored, so that it is known after a restart too.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import time
from pathlib import PurePath

import msgspec

from scanner_io import disk
from scanner_io.errors import DataError, LinkLost, StorageError, TruncatedError
from scanner_io.formats.passage_files import (
    attachment,
    choose_images,
    join_energies,
    names_of,
    no_image,
    passage_flags,
    start_utc_ns,
)
from scanner_io.formats.sidecar import is_sidecar_name
from scanner_io.model import Event, Quality, Radiograph, Rejected, ScanStart
from scanner_io.storage import write_durable
from scanner_io.vendor_record import Attachment, Sidecar

from . import GIVE_UP, LAST_UTC_NS, Config, FileDrop, _beside, _events, _move, _plain, _printable, _reserve, _write
from .passages import REMEMBERED, Book, Given, Passage, Seen, Sheet

JOURNAL = ".scanlane-passages.jsonl"
"""Name in the done folder of what was given, a JSON line a passage."""
CLOCKS_DIFFER_S = 600.0
"""Scan time and record time of one sidecar further apart than this are of two clocks; told when it begins or moves."""
_TAIL = 0.5
"""The end of a JPEG's image must lie in the last part of its file: a thumbnail inside has an end too."""
_PASSAGE = "\0"
"""Begins the queue's names of passages; no file's name has it."""


class PassageDrop(FileDrop):
    """The driver of a watched folder of passages."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._book = Book(
            super()._counts, config.energies, config.needed_roles, config.passage_wait_s,
            by_names=config.passages == "names",
        )  # fmt: skip
        self._due: dict[str, Passage] = {}
        self._reading: set[str] = set()
        self._given: dict[str, tuple[Given, Given | None]] = {}
        self._bad: dict[str, str] = {}
        self._skews: dict[tuple[str, str], float] = {}
        self._remembering = False

    # ------------------------------------------------------------------------------------------- the base's hooks

    def _counts(self, name: str) -> bool:
        """Any file may be one that a sidecar lists."""
        return True

    def _abandon(self) -> None:
        interrupted = self._current
        super()._abandon()
        given, before = self._given.pop(interrupted, (None, None))
        if given is not None:
            self._book.memory.forget(given.key)
            if before is not None:
                self._book.memory.add(before)
        self._due.clear()
        self._reading.clear()

    def _next(self) -> Event:
        event = super()._next()
        if isinstance(event, Rejected) and event.source_ref == self._current:
            self._current = ""
        return event

    def acknowledge(self, source_ref: str) -> None:
        """Put the files of a passage away, and write down that it was given."""
        if source_ref in self._given and source_ref != self._current:
            self._write_down(self._given.pop(source_ref)[0])
        super().acknowledge(source_ref)

    def _settle(self, now_s: float) -> None:
        """Queue sidecars at rest to be read, and passages that are complete or waited for long enough."""
        if not self._remembering:
            self._remember()
        config = self._config
        give_up_s = GIVE_UP * max(config.partial_after_s, config.stable_s)
        for name, file in list(self._seen.items()):
            unchanged_s = now_s - file.since_s
            file.settled = unchanged_s >= config.stable_s
            if not file.settled and now_s - file.first_s >= give_up_s > 0:
                self._reject(name, f"still changing after {now_s - file.first_s:.0f} s: it was never stable")
            elif file.problem and is_sidecar_name(name) and unchanged_s >= config.partial_after_s:
                file.problem = ""  # one last look
        sheets = [n for n in self._book.unread(self._seen) if not self._seen[n].problem]
        for name in sheets:
            if name not in self._reading:
                self._reading.add(name)
                heapq.heappush(self._queue, (self._seen[name].signature[1], name))
        for passage in self._book.ready(self._seen, now_s, waiting=bool(sheets)):
            key = _PASSAGE + passage.key
            if key not in self._due:
                self._due[key] = passage
                heapq.heappush(self._queue, (min(self._seen[n].signature[1] for n in passage.files), key))
        self._tell_unclaimed(now_s)

    def _tell_unclaimed(self, now_s: float) -> None:
        """Tell of files that no sidecar names and that are no image."""
        listed = {
            n for sheet in self._book.sheets.values() for r in sheet.sidecar.resources for n in [r.name.casefold()]
        }
        for name, file in self._seen.items():
            old = now_s - file.since_s >= self._config.passage_wait_s
            if old and name.casefold() not in listed and not is_sidecar_name(name) and not super()._counts(name):
                self._pass_over(name, "is named by no sidecar")

    def _take(self, name: str) -> None:
        if name.startswith(_PASSAGE):
            passage = self._due.pop(name, None)
            if passage is not None and all(n in self._seen and self._seen[n].settled for n in passage.files):
                self._take_passage(passage)
            return
        self._reading.discard(name)
        file = self._seen.get(name)
        if file is not None and file.settled:
            self._take_sheet(name, file)

    def _put_away(self, name: str) -> None:
        reason = self._bad.get(name)
        if reason is None:
            super()._put_away(name)
            return
        target = _reserve(self._quarantine, name, beside=(".reason.txt",))
        _write(_beside(target, ".reason.txt"), f"{reason}\n".encode())
        _move(self._folder / name, target)
        del self._bad[name]

    # ----------------------------------------------------------------------------------------------- one sidecar

    def _take_sheet(self, name: str, file: Seen) -> None:
        """Read a sidecar at rest, or learn why it cannot be read."""
        contents = None
        try:
            contents = self._contents(name, file)
            if contents is None:
                return
            told = self._readers.sidecar(
                contents, name=_printable(name), utc_offset_h=self._config.sidecar_utc_offset_h
            )
        except DataError as error:  # half written, perhaps
            unchanged_s = time.monotonic() - file.since_s
            file.problem = str(error)
            if unchanged_s >= self._config.partial_after_s:
                self._reject(name, f"unchanged for {unchanged_s:.0f} s: {error}", contents)
            return
        self._watch_clocks(told)
        twin = next((n for n, s in self._book.sheets.items() if s.sidecar.scan_id == told.scan_id and n != name), None)
        if twin is not None and _revision(self._book.sheets[twin].sidecar) > _revision(told):
            name, twin = twin, name
        else:
            self._book.sheets[name] = Sheet(file.signature, told, hashlib.sha256(contents).hexdigest())
        if twin is not None:
            self._file_twin(twin, name)

    def _file_twin(self, older: str, newer: str) -> None:
        """Put away the older of two sidecars of one scan."""
        self._book.sheets.pop(older, None)
        self._unmoved[older] = self._seen.pop(older).signature
        self._retire(older)
        self._health("degraded", f"{_printable(older)} and {_printable(newer)} are of one scan: the newer is taken")

    def _watch_clocks(self, told: Sidecar) -> None:
        """Tell when scan and record time of one site's sidecars come apart, or move against each other."""
        start, created = told.beam_start, told.created
        if start is None or created is None or start.utc_ns is None or created.utc_ns is None:
            return
        machine, skew_s = (told.site, told.system), (start.utc_ns - created.utc_ns) / 1e9
        known_s = self._skews.get(machine, 0.0)
        if abs(skew_s - known_s) >= CLOCKS_DIFFER_S:
            self._skews[machine] = skew_s
            text = (
                f"site {told.site or '?'}: scans begin {skew_s:+.0f} s from when their record was made (before: "
                f"{known_s:+.0f} s): two clocks; set clock_ahead_s, or mend the scanner's clock"
            )
            self._health("degraded" if abs(skew_s) >= CLOCKS_DIFFER_S else "ok", _plain(text))

    # ----------------------------------------------------------------------------------------------- one passage

    def _take_passage(self, passage: Passage) -> None:
        """Give a passage that is complete or final, or wait on where a file of it turns out not to be whole."""
        files = {name: self._seen[name] for name in passage.files}
        chosen = choose_images(passage.there, {n: files[n].signature[0] for n in passage.there}, self._config.energies)
        images: dict[str, bytes] = {}
        hashes: dict[str, str] = {}
        attached: list[Attachment] = []
        for name, listed in passage.there.items():
            try:
                contents = self._contents(name, files[name])
                if contents is None:
                    return  # changed: it is seen anew
                hashes[name] = hashlib.sha256(contents).hexdigest()
                if name in chosen.values():
                    images[name] = contents
                    continue
                _check_end(name, contents)
            except DataError as error:
                if not passage.final:
                    files[name].problem = str(error)
                    return
                self._bad[name] = _plain(str(error))
            attached.append(
                attachment(name, listed.role, files[name].signature[0], hashes.get(name, ""), contents or b"")
            )
        if self._is_repeated(passage, {n: hashes[n] for n in images}, hashes):
            return
        decoded = self._decoded(passage, chosen, images)
        if decoded is not None:
            self._give(passage, decoded, {n: hashes[n] for n in images}, hashes, tuple(attached))

    def _decoded(
        self, passage: Passage, chosen: dict[str, str], images: dict[str, bytes]
    ) -> dict[str, Radiograph] | None:
        """Return the images of a passage, by energy; None where one is not whole and may still become so."""
        decoded: dict[str, Radiograph] = {}
        for energy, name in chosen.items():
            if name not in images:
                continue
            try:
                decoded[energy] = self._decode(name, self._seen[name], images[name], self._passage_start(passage))[0]
            except TruncatedError as error:
                if not passage.final:
                    self._seen[name].problem = str(error)
                    return None
                self._bad[name] = _plain(f"incomplete after {self._config.passage_wait_s:g} s: {error}")
            except LinkLost:
                raise
            except Exception as error:  # one image must not stop the lane
                told = (
                    str(error)
                    if isinstance(error, DataError)
                    else f"the reader failed ({type(error).__name__}: {error})"
                )
                self._bad[name] = _plain(told)
        return decoded

    def _is_repeated(self, passage: Passage, images: dict[str, str], hashes: dict[str, str]) -> bool:
        """File away what was given before; False where there is something new in it."""
        memory, before = self._book.memory, passage.again
        if before is None:
            owner = (
                None if passage.sidecar is not None or not images else memory.with_image(next(iter(images.values())))
            )
            if owner is None or any(memory.with_image(sha256) != owner for sha256 in images.values()):
                return False
            text = f"{', '.join(map(_printable, images))}: the same content as scan {_printable(owner)}, given before"
        else:
            if not set(images.values()) <= set(before.images.values()):
                return False
            text = f"{', '.join(map(_printable, passage.files))}: of scan {_printable(before.key)}, given before"
            if passage.sheet:
                sheet = self._book.sheets[passage.sheet]
                if sheet.sha256 != before.sheet_sha256:
                    text += f"; its sidecar was rewritten {_changes(before.sidecar, sheet.sidecar)}"
                before = msgspec.structs.replace(before, sidecar=sheet.sidecar, sheet_sha256=sheet.sha256)
            others = before.others | {n: s for n, s in hashes.items() if n not in images}
            before = msgspec.structs.replace(before, others=others)
            memory.add(before)
            self._write_down(before)
        self._health("ok", f"{_plain(text)}; put to {_printable(self._done)}")
        for name in passage.files:
            self._unmoved[name] = self._seen.pop(name).signature
            self._book.sheets.pop(name, None)
        for name in passage.files:
            if not self._retire(name):
                break
        return True

    def _give(
        self, passage: Passage, decoded: dict[str, Radiograph], images: dict[str, str], hashes: dict[str, str],
        attached: tuple[Attachment, ...],
    ) -> None:  # fmt: skip
        """Make the events of a passage."""
        flags = self._flags(passage, images)
        sheet = self._book.sheets.pop(passage.sheet) if passage.sheet else None
        told = passage.sidecar
        shown = next(reversed(images), passage.sheet or passage.files[0])
        sha256 = sheet.sha256 if sheet is not None and not images else _of_all(list(images.values()))
        source, ref = _printable(self._folder / shown), f"{_printable(passage.key)}@{sha256[:16]}"
        told_bad = [f"{_printable(n)}: {self._bad[n]}" for n in images if n in self._bad]
        if decoded:
            radiograph, more = join_energies(decoded)
            flags += (*more, *(Quality(code="energy_unreadable", reason=text) for text in told_bad))
            start, *rest = _events(radiograph, ref, source, sha256)
            assert isinstance(start, ScanStart)
            start = msgspec.structs.replace(start, quality=flags, sidecar=told, attachments=attached)
            self._ready.extend([start, *rest])
        else:
            why = "; ".join(told_bad)
            if not why:
                why = f"no image came: {', '.join(map(_printable, passage.there))}" if told is None else no_image(
                    told, passage.missing, passage.there)  # fmt: skip
            event = Rejected(
                source_ref=ref, utc_ns=self._passage_start(passage)[0], reason=_plain(why), source=source,
                source_sha256=sha256, quality=flags, sidecar=told, attachments=attached,
            )  # fmt: skip
            self._ready.append(event)
        self._offered[ref] = {name: self._seen.pop(name).signature for name in passage.files}
        self._current = ref
        self._next_scan_s = time.monotonic() + self._config.pace_s
        before = passage.again
        others = {n: s for n, s in hashes.items() if n not in images}
        given = Given(
            key=passage.key, sidecar=told, sheet_sha256=sheet.sha256 if sheet else "", images=images, others=others
        )
        if before is not None:
            given = msgspec.structs.replace(
                given, sheet_sha256=given.sheet_sha256 or before.sheet_sha256, images=before.images | images,
                others=before.others | others,
            )  # fmt: skip
        self._given[ref] = (given, before)
        self._book.memory.add(given)

    def _flags(self, passage: Passage, images: dict[str, str]) -> tuple[Quality, ...]:
        waited = f" after {self._config.passage_wait_s:g} s"
        if passage.sidecar is not None:
            flags = passage_flags(passage.sidecar, passage.missing, waited)
        elif passage.missing:
            flags = (Quality(code="passage_partial", reason=f"missing{waited}: {names_of(passage.missing)}"),)
        else:
            flags = ()
        if passage.sidecar is None and self._config.passages == "sidecars":
            flags += (Quality(code="sidecar_missing", reason=f"no sidecar has named this image{waited}"),)
        if passage.again is not None:
            what = "with other images" if passage.again.images else "without its image"
            reason = f"scan {passage.key} was given before, {what}"
            flags += (Quality(code="passage_given_before", reason=reason),)
        owners = {self._book.memory.with_image(sha256) for sha256 in images.values()} - {None, passage.key}
        if owners:
            reason = f"byte for byte the image of scan {', '.join(sorted(o for o in owners if o))}"
            flags += (Quality(code="image_of_another_scan", reason=reason),)
        return flags

    def _passage_start(self, passage: Passage) -> tuple[int, str]:
        """Return when a passage began, and where that comes from."""
        told = None if passage.sidecar is None else start_utc_ns(passage.sidecar, self._config.clock_ahead_s)
        if told is not None and 0 <= told[0] < LAST_UTC_NS:
            return told
        name = next((n for n, r in passage.there.items() if r.role == "radiograph"), passage.files[0])
        return self._start(name, self._seen[name])

    # ------------------------------------------------------------------------------------------------ the memory

    def _remember(self) -> None:
        """Learn from the done folder what was given; a line cut short by a crash is left out."""
        self._remembering = True
        try:
            lines = (self._done / JOURNAL).read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self._health("degraded", _plain(f"what was given before is not known ({error}): it may be given again"))
            return
        lines = [line for line in lines if line]
        for line in lines[-REMEMBERED:]:
            with contextlib.suppress(msgspec.MsgspecError):
                self._book.memory.add(msgspec.json.decode(line, type=Given))
        if len(lines) > 2 * REMEMBERED:
            try:
                write_durable(
                    self._done / JOURNAL, b"".join(line + b"\n" for line in lines[-REMEMBERED:]), replace=True
                )  # fmt: skip
            except StorageError as error:  # it stays as long as it is
                self._health("degraded", _plain(f"the list of what was given cannot be shortened ({error})"))

    def _write_down(self, given: Given) -> None:
        try:
            handle = disk.io().open(self._done / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                # What a killed process left of a line ends here, so that it does not spoil this one.
                disk.write_all(handle, b"\n" + msgspec.json.encode(given) + b"\n")
                disk.io().sync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._health("degraded", _plain(f"scan {given.key} is not written down as given ({error})"))


def _revision(told: Sidecar) -> int:
    return -1 if told.revision is None else told.revision


def _changes(before: Sidecar | None, after: Sidecar) -> str:
    """Return what a rewritten sidecar says that it did not say before, in words."""
    if before is None:
        return "(nothing was known of it)"
    changed = [
        f for f in after.__struct_fields__ if f not in ("extra", "problems") and getattr(before, f) != getattr(after, f)
    ]
    verdicts = "; ".join(f"{o.kind}: {o.verdict}" for o in after.operations if o not in before.operations)
    return f"(changed: {', '.join(changed) or 'nothing that is read'}{'; now ' + verdicts if verdicts else ''})"


def _check_end(name: str, contents: bytes) -> None:
    """Raises TruncatedError where a JPEG or PNG that is not decoded has no end."""
    suffix = PurePath(name).suffix.casefold()
    if suffix in (".jpg", ".jpeg") and contents.rfind(b"\xff\xd9") < _TAIL * len(contents) - 2:
        raise TruncatedError(f"{_printable(name)}: a JPEG without its end")
    if suffix == ".png" and b"IEND" not in contents[-64:]:
        raise TruncatedError(f"{_printable(name)}: a PNG without its end")


def _of_all(hashes: list[str]) -> str:
    """Return the hash of one file, or a hash of several."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
