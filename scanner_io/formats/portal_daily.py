"""Rapiscan/TSA portal lines: one codec for the wire and for daily files.

A portal pushes ASCII lines `CODE,f1,f2,f3,f4` ending in CR LF, without time stamp, checksum or sequence number; f1..f4
are master lower, master upper, slave lower, slave upper. A daily file holds the same lines with a column of time that
the receiver added. `PortalDecoder` turns lines into events; `iter_daily_file` strips the stamps and drives the same
decoder by them; `format_line` is the way back.

Nothing here raises on foreign bytes: what cannot be read is counted, told as Health, and kept in the record of the
passage it fell into, which then never reads as clear.

Source: RPM-Simulator and Daily-File-Reader (Rapiscan Labs, 2016); SRLS (Sandia lane simulator); OSCAR.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
from codecs import BOM_UTF8
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice, pairwise
from operator import eq, itemgetter
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model import (
    NANOSECONDS,
    CountBlock,
    EndReason,
    Event,
    Health,
    Occupancy,
    PortalCount,
    PortalRecord,
    PortalSettings,
)

GAMMA_INTERVAL_NS = 200_000_000
"""Length of one GS or GA interval."""
NEUTRON_INTERVAL_NS = NANOSECONDS
"""Length of one NS or NA interval."""
BACKGROUND_STEP = 0.25
"""Share by which a background may differ from the line before it, besides counting: recorded ones stay within 3 %."""
BACKGROUND_AGE_NS = 900 * NANOSECONDS
"""A gamma background that is older at entry is told: rain changes it by 1 % in a minute."""
BURST_LINES = 9
"""Lines at the start of a passage whose arrival says nothing of their time: five buffered intervals come at once, and
7 to 9 lines pass before the first gap of 150 ms."""
ONE_LINE = 0.75
"""Share of an interval by which the steady part of a passage that lost one line lasts longer. None of 50 recorded ones
does."""
MPH_LIMIT = 20.0
"""Speeds from here on are the display's cap or an outlier (half of all SP lines), not a vehicle in a portal."""
KMH_PER_MPH = 1.609344
LINE_CAP = 1024
"""Bytes of the longest line that is read; the longest known has 60. Anything longer is junk, kept up to here."""
RAW_CAP = 1 << 20
"""Characters of raw lines kept per passage, each line counted as 32 more: a normal one needs 20 thousand. Count and
speed lines are always kept, and GX; their number is bounded by itself."""
MAX_PASSAGE_LINES = 20_000
"""Count and speed lines of the longest passage, about an hour: one that stands longer is ended and begun again, so
that memory stays bounded."""
QUIET_NS = 600_000_000
"""Longer than any pause between two lines of one passage (0.53 s over 700 recorded ones): the network held lines back,
lines were lost, or a vehicle left and the next came while the line between them (GX) was lost."""
BUFFERED_LINES = 5
BURST_NS = 400_000_000
"""The five buffered intervals at entry come within this (17 ms over TCP, 0.2 s at 9600 baud); live ones take 0.8 s."""
ENTRY_NS = 100_000_000
"""From the first line of a passage to its burst is more than this (0.185 s or more in 50 recorded ones)."""
OFFSET_NS, OFFSET_ALONE_NS = 100_000_000, 300_000_000
"""Lines that were held back fall into step again after a pause; those of another vehicle do not, by more than the first
where the portal's count says that there is another one, else by more than the second (a lost line is 0.2 s)."""
WHOLE_NS, WHOLE_REACH_NS = -1_000_000_000, 150_000_000
"""From the first line of a passage to its GX, less 0.2 s for each gamma line: five lines are of the time before entry.
Recorded is -1.03 to -0.87 s (50 passages); every lost gamma line adds 0.2 s, wherever it was."""
NEUTRON_REACH_NS = 100_000_000
"""A neutron line comes every second to the end: GX follows the last one by less (0.002 to 0.815 s recorded)."""
WHOLE_PASSAGES = 15
"""Passages whose shortest says whether this portal is like the recorded one, once a third of them have come."""
REPEATED_COUNTS = 100
"""Counts in a gamma line from which two lines in a row are not alike by chance: four detectors of 25 counts each agree
once in 10^5 pairs, those of a recorded portal (77 each) in 10^6, so 1 passage in 15,000 is said to repeat a line."""
REPEATED_RUN = 3
"""Lines alike in a row at most that are put down to the wire; more of them are a detector that is stuck."""
MAX_QUIETS = 32
"""Pauses remembered per passage."""
MAX_CODES = 64
"""Different codes that are counted by name; further unknown ones share the name `other`."""
REPORT_EVERY_NS = 60 * NANOSECONDS
"""Unreadable lines and unknown codes are told at once and then at most this often."""

SETUP_CODES = ("SG1", "SG2", "SG3", "SN1", "SN2")
EXTENSION_CODES = frozenset({"AA", "AB1", "AC", "AM", "AR", "AS", "AX", "NC", "NX", "NZ", "RW"})
"""Seen on real portals, meaning unofficial: kept raw and counted, not worth a word. Used where they can be read: AS
(counts per energy window and interval), AB1 (their background; AR is AB1 / sum(AB1)) and AA (window alarm)."""
MAX_WINDOWS = 16
"""Energy windows of one AS line at most; real ones have four."""
FAULTS = {
    "GH": ("gamma", "gamma background high"),
    "GL": ("gamma", "gamma background low"),
    "NH": ("neutron", "neutron background high"),
    "TT": ("tamper", "tamper contact opened"),
}
"""Fault codes: component and words."""

_KNOWN = frozenset({"GB", "NB", "NB1", "GS", "GA", "NS", "NA", "GX", "SP", "TC", *FAULTS, *SETUP_CODES})
_CERTAIN = _KNOWN | EXTENSION_CODES
_OCCUPIED = frozenset({"GS", "GA", "NS", "NA", "SP"})
_VACANT = frozenset({"GB", "GH", "GL", "NB", "NH", "GX"})
_SPECTROSCOPIC = frozenset({"S1", "S2"})
_CODE = re.compile(r"[A-Z][A-Z0-9]{1,3}")
_MASK = re.compile(r"[01]{4}")
_DECIMAL = re.compile(r" *\d{1,9}(\.\d{0,12})? *")
YEARS = range(1990, 2101)
"""Years that a stamp may name: others are damaged digits."""
STANDING_SHARE = 0.25
"""Share of the time of its counts below which the stamps of a passage do not run with it: recorded ones are 1 or more.
"""
_STAMP_LEAP_NS = 6 * 3600 * NANOSECONDS
_STAMP_BACK_NS = NANOSECONDS
"""Stamps of a daily file that go back by more are a clock that was set; recorded files never go back at all."""
_DATED = re.compile(
    r"(\d{4}-\d{1,2}-\d{1,2})[ T](\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))? ?([+-]\d{1,2}(?::?\d{2})?|Z)?"
)
_DATELESS = re.compile(r"(\d{1,2})-(\d{1,2})-(\d{1,2})(?:\.(\d{1,9}))?")
_DATE_IN_NAME = re.compile(r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?!\d)")


class Line(NamedTuple):
    """One portal line. `code` is empty where the line begins with nothing that could be one."""

    code: str
    fields: tuple[str, ...]
    raw: str


def parse_line(text: str) -> Line:
    """Return `text` cut into code and fields. Never raises: fields are checked where their meaning is known."""
    raw = text.strip("\r\n\0 ")
    if not (raw.isascii() and raw.isprintable()):
        # A recording cannot hold NUL in text, and an analyst cannot see it.
        raw = "".join(c if c.isascii() and c.isprintable() else f"\\x{ord(c):02x}" for c in raw)
    parts = raw.split(",")
    code = parts[0]
    if code not in _CERTAIN and not _CODE.fullmatch(code):
        return Line("", (), raw)
    return Line(code, tuple(parts[1:]), raw)


def format_line(code: str, fields: Sequence[int | float | str]) -> bytes:
    """Return one line as a portal sends it, e.g. `("GB", [379, 371, 407, 371])` -> `GB,000379,000371,000407,000371`.

    fields : int as six digits; float as the code writes it (SP: seconds per foot, mph, km/h; NB1 and AB1: eight
        decimals; AR: four); str as it is (set-up lines)

    Raises DataError for a count that six digits cannot hold.
    """
    columns = [code]
    for position, field in enumerate(fields):
        if isinstance(field, str):
            columns.append(field)
        elif code == "SP" and position < 3:
            columns.append(f"{field:{('.4f', '06.3f', '06.2f')[position]}}")
        elif isinstance(field, float):
            columns.append(f"{field:.4f}" if code == "AR" else f"{field:.8f}")
        elif 0 <= field <= 999_999:
            columns.append(f"{field:06d}")
        else:
            raise DataError(f"portal line {code}, field {position + 1}: {field}, expected 0 to 999999")
    return (",".join(columns) + "\r\n").encode("ascii")


def _count(text: str) -> int:
    """Return a count. int() alone would take signs, blanks, underscores and foreign digits."""
    if len(text) <= 9 and text.isdigit() and text.isascii():
        return int(text)
    raise ValueError(f"{text[:20]!r} is not a count")


def _decimal(text: str) -> float:
    """Return a number 0 or more, finite."""
    if _DECIMAL.fullmatch(text):
        return float(text)
    raise ValueError(f"{text[:20]!r} is not a decimal number")


class LineCutter:
    """Bytes in any split to lines, within a bounded buffer.

    A line longer than `cap` bytes is given up: its first `cap` bytes come out once, marked, and the rest up to the
    next line end is counted in `dropped_bytes` and forgotten.
    """

    def __init__(self, cap: int = LINE_CAP) -> None:
        self._cap = cap
        self._rest = b""
        self._skipping = False
        self.dropped_bytes = 0

    def push(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return the lines that `data` completes, each with True if it was longer than the cap."""
        # CR alone ends a line too (serial servers that rewrite line ends); CR LF then leaves an empty one behind.
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        done: list[tuple[bytes, bool]] = []
        for line in lines:
            if not self._rest and not self._skipping and 0 < len(line) <= self._cap:
                done.append((line, False))  # as most lines are: whole
                continue
            self._grow(line, done)
            if self._rest:
                done.append((self._rest, False))
            self._rest, self._skipping = b"", False
        self._grow(rest, done)
        return done

    def drain(self) -> bytes:
        """Return what was left of an unfinished line and forget it."""
        rest, self._rest, self._skipping = self._rest, b"", False
        return rest

    def _grow(self, piece: bytes, done: list[tuple[bytes, bool]]) -> None:
        if self._skipping:
            self.dropped_bytes += len(piece)
            return
        if len(self._rest) + len(piece) <= self._cap:
            self._rest += piece
            return
        room = self._cap - len(self._rest)
        done.append((self._rest + piece[:room], True))
        self.dropped_bytes += len(piece) - room
        self._rest, self._skipping = b"", True


class _Quiet(NamedTuple):
    """A pause in a passage: how long each of its lists was, when the last line came before it and the first after it,
    and how many lines had been kept.
    """

    lengths: dict[str, int]
    last_ns: int
    next_ns: int
    later: int


class _Passage:
    """What is known of the open occupancy. Private to the decoder, thrown away when it ends."""

    def __init__(self, source_ref: str, utc_ns: int) -> None:
        self.source_ref = source_ref
        self.start_ns = utc_ns
        self.last_ns = utc_ns
        self.gamma: list[list[int]] = []
        self.gamma_alarm: list[bool] = []
        self.gamma_arrival: list[int] = []
        self.neutron: list[list[int]] = []
        self.neutron_alarm: list[bool] = []
        self.neutron_arrival: list[int] = []
        self.windows: list[tuple[int, list[int]]] = []  # AS rows, each with the gamma lines that had come before it
        self.windows_unread = False
        self.windows_alarm: list[int] = []  # gamma lines that had come before an AA
        self.mph: list[float] = []
        self.faults: dict[str, None] = {}  # an ordered set
        self.raw: list[str] = []
        self.quiets: list[_Quiet] = []
        self.later: list[tuple[Line, int]] = []  # lines since the first pause, with their times
        self._room = RAW_CAP

    def keep(self, raw: str, mark: str = "") -> bool:
        """Keep a raw line while there is room, and say once that there is none; return whether it was kept.

        mark : why the line was not read; a marked line does not begin with its code, so that the unmarked GS, GA, NS
            and NA lines of a record are those its counts come from.
        """
        if self._room > 0:
            raw = f"[{mark}] {raw}" if mark else raw
            self._room -= len(raw) + 32  # a short line costs memory too
            self.raw.append(raw if self._room > 0 else f"[further lines left out: {RAW_CAP} characters reached]")
        return self._room > 0

    def pause(self, utc_ns: int) -> None:
        """Remember where a pause is that ends now, unless there were many."""
        if len(self.quiets) < MAX_QUIETS:
            lengths = {k: len(v) for k, v in vars(self).items() if isinstance(v, list)}
            self.quiets.append(_Quiet(lengths, self.last_ns, utc_ns, len(self.later)))

    def remember(self, line: Line, utc_ns: int) -> None:
        """Keep a line that came after a pause, so that it can be taken for another passage."""
        if len(self.later) < MAX_PASSAGE_LINES:
            self.later.append((line, utc_ns))

    def cut(self, quiet: _Quiet) -> list[tuple[Line, int]]:
        """Forget what came after a pause and return its lines."""
        later = self.later[quiet.later :]
        for name, length in quiet.lengths.items():
            del vars(self)[name][length:]
        self.last_ns = quiet.last_ns
        return later

    @property
    def lines(self) -> int:
        return len(self.gamma) + len(self.neutron) + len(self.mph)


class PortalDecoder:
    """Portal bytes to events; see `scanner_io.driver.Decoder`. State (background, set-up, faults) outlives a link.

    timeout_s : a passage without a count or speed line for so long has ended (the longest real gap is 0.53 s)
    silence_s : nothing at all for so long is told as Health (a vacant portal speaks every 5 s)
    detectors : count fields of a line
    interval_ns : nominal length of a gamma interval

    A passage begins with the first SP, NS, NA, GS or GA after vacancy and ends `complete` at GX; `aborted` at another
    code that means vacancy, or at a set-up block (the portal was restarted); `timed_out`; or `link_lost`.

    If GX is lost and the next vehicle comes before the time-out, no line tells the two apart; the portal's count and
    the burst of buffered intervals at entry do, and the passage is parted when it ends (`_part`).

    The record's faults are the portal's codes (GH, GL, NH, TT) in force at entry or seen since, and what the decoder
    itself found: `start_not_seen` (no vacancy since the last passage broke off, or no burst at entry),
    `passages_missed` (numbers before it never came), `damaged_line`, `unknown_line` (in it or since the vacancy before
    it), `lines_lost` (fewer gamma or neutron lines than the time they took), `line_repeated` (the wire gave a count
    line more than once), `too_long`, `spectroscopic` (S1 or S2 was seen: not a portal for this codec),
    `background_jumped` (the last background before entry is not like the one before it), `background_old` (that is more
    than 15 minutes old), `window_alarm` (AA without a gamma line), `clock_stepped` (back, by more than an interval).
    """

    def __init__(
        self,
        *,
        timeout_s: float = 4.0,
        silence_s: float = 12.0,
        detectors: int = 4,
        interval_ns: int = GAMMA_INTERVAL_NS,
    ) -> None:
        self._timeout_ns = int(timeout_s * NANOSECONDS)
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._detectors = detectors
        self._interval_ns = interval_ns
        self._cutter = LineCutter()
        self._passage: _Passage | None = None
        self._sequence = 0
        self._vacant_seen = True
        self._gamma_background: npt.NDArray[np.float64] | None = None
        self._gamma_background_ns = 0
        self._neutron_background: npt.NDArray[np.float64] | None = None  # NB1, exact
        self._neutron_truncated: npt.NDArray[np.float64] | None = None  # NB, whole counts
        self._windows_background: npt.NDArray[np.float64] | None = None  # AB1
        self._windows_missing = False
        self._faults: dict[str, tuple[str, int]] = {}  # component -> fault code in force, since when
        self._setup: dict[str, Line] = {}
        self._setup_values: dict[str, Any] = {}
        self._in_setup = False
        self._settings: PortalSettings | None = None
        self._number: int | None = None
        self._broken_off = 0  # passages ended without GX since the last one
        self._broken_before = 0  # of them, before a set-up block that came since
        self._anew = False  # a set-up block has come since the last GX, and an epoch was begun with it
        self._numbers_missing = False
        self._repeats = False
        self._unread_at_entry: dict[str, None] = {}  # what could not be read since the last vacant line
        self._end_raw = ""  # GX, until another line of a known code comes
        self._over_ns: deque[int] = deque(maxlen=WHOLE_PASSAGES)
        self._unusual = False
        self._silent_since_ns: int | None = None
        self._unknown_seen = self._unknown_told = self._damaged_told = 0
        self._unknown_told_ns: int | None = None
        self._damaged_told_ns: int | None = None
        self._damaged_example = ""
        self.boot_epoch = 0
        """The portal's present run, by the UTC second in which it was first heard; 0 until a line has come."""
        self.codes: Counter[str] = Counter()
        """Lines seen by code; unknown ones beyond 64 codes under `other`."""
        self.damaged_lines = 0
        """Lines of a known code that could not be read, lines without a code, and over-long lines."""
        self._take: dict[str, Callable[[Line, int, list[Event]], None]] = {
            **dict.fromkeys(("GS", "GA"), self._on_gamma),
            **dict.fromkeys(("NS", "NA"), self._on_neutron),
            **dict.fromkeys(("GH", "GL", "NH"), self._on_fault),
            **dict.fromkeys(SETUP_CODES, self._on_setup),
            "SP": self._on_speed,
            "GX": self._on_end,
            "GB": self._on_gamma_background,
            "NB": self._on_neutron_background,
            "NB1": self._on_exact_neutron_background,
            "TT": self._on_tamper,
            "TC": self._on_tamper,
            "AS": self._on_windows,
            "AB1": self._on_windows_background,
            "AA": self._on_windows_alarm,
        }

    def resume(self, count: PortalCount) -> None:
        """Go on where an earlier reader of this portal stopped: `passages_missed` names what it counted meanwhile."""
        self.boot_epoch, self._number = count.boot_epoch, count.number

    # ---- the Decoder protocol

    def feed(self, data: bytes, utc_ns: int) -> list[Event]:
        """Take received bytes and return the events they complete. Never raises on foreign bytes."""
        events: list[Event] = []
        for line, over_long in self._cutter.push(data):
            self._on_line(line.decode("latin-1"), over_long, utc_ns, events)
        # Junk without a line end must not keep a passage open.
        self._check_timeout(utc_ns, events)
        return events

    def idle(self, utc_ns: int, silent_s: float) -> list[Event]:
        """Nothing came for `silent_s`: end an open passage that timed out, tell silence once."""
        events: list[Event] = []
        if self._passage is not None and silent_s >= self._timeout_s:
            self._leave("timed_out", utc_ns, events)
        self._check_timeout(utc_ns, events)
        if silent_s >= self._silence_s and self._silent_since_ns is None:
            self._silent_since_ns = utc_ns - int(silent_s * NANOSECONDS)
            text = f"no line for {silent_s:.1f} s (a vacant portal speaks every 5 s); check power, cable and link"
            events.append(Health(utc_ns=utc_ns, component="silence", state="degraded", text=text))
        return events

    def lost(self, utc_ns: int) -> list[Event]:
        """The link is gone: end an open passage as `link_lost`; an unfinished line is kept raw, never read."""
        events: list[Event] = []
        rest = self._cutter.drain()
        if self._passage is not None:
            if rest:
                self._passage.keep(parse_line(rest.decode("latin-1")).raw, "cut off")
            self._leave("link_lost", utc_ns, events)
        self._vacant_seen, self._end_raw = False, ""
        return events

    def take_line(self, text: str, utc_ns: int, over_long: bool = False) -> list[Event]:
        """Take one whole line without its line end (a daily file's, stamp removed) that came at `utc_ns`."""
        events: list[Event] = []
        self._on_line(text, over_long, utc_ns, events)
        return events

    # ---- lines

    def _on_line(self, text: str, over_long: bool, utc_ns: int, events: list[Event]) -> None:
        line = parse_line(text)
        if not line.raw:
            return
        if self._silent_since_ns is not None:
            text = f"the portal speaks again, {_lasted(self._silent_since_ns, utc_ns)}"
            self._silent_since_ns = None
            events.append(Health(utc_ns=utc_ns, component="silence", state="ok", text=text))
        if self._passage is not None:
            self._check_timeout(utc_ns, events)
        if over_long:
            self._damaged(f"longer than {LINE_CAP} bytes, the rest dropped", line.raw, utc_ns, events)
            line = line._replace(code="")
        else:
            self._take_line(line, utc_ns, events)
        passage = self._passage
        if passage is not None and passage.quiets:
            passage.remember(line, utc_ns)

    def _take_line(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        code = line.code
        if not self.boot_epoch and code not in SETUP_CODES:  # a set-up line begins an epoch of its own
            self.boot_epoch = utc_ns // NANOSECONDS
        take = self._take.get(code)
        if take is None:
            self._on_other(line, utc_ns, events)
            return
        self.codes[code] += 1
        if code in _OCCUPIED or code in _VACANT:
            self._in_setup = False
        if code != "GX":
            self._end_raw = ""
        try:
            take(line, utc_ns, events)
        except ValueError as error:
            if code in _VACANT and self._passage is not None:
                self._passage.keep(line.raw, "damaged")
                self._passage.faults["damaged_line"] = None
                self._leave("aborted", utc_ns, events)
            self._damaged(str(error), line.raw, utc_ns, events)

    def _on_other(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """Keep an extension, an unknown code or junk."""
        if not line.code:
            self._damaged("no line code", line.raw, utc_ns, events)
            return
        if line.code in _SPECTROSCOPIC and "spectroscopic" not in self._faults:
            # For good: what GB, GS and NS of such a portal count is not known here.
            self._faults["spectroscopic"] = "spectroscopic", utc_ns
            text = f"{line.raw[:40]!r} is a line of a spectroscopic portal, whose counts mean something else; this "
            text += "driver reads gross-count portals only"
            events.append(Health(utc_ns=utc_ns, component="spectroscopic", state="fault", text=text))
        known = line.code in self.codes or line.code in EXTENSION_CODES or len(self.codes) < MAX_CODES
        self.codes[line.code if known else "other"] += 1
        if self._passage is not None:
            self._passage.keep(line.raw)
            if line.code not in EXTENSION_CODES:
                self._passage.faults["unknown_line"] = None  # may be a damaged count or alarm
        if line.code not in EXTENSION_CODES:
            self._unread_at_entry["unknown_line"] = None
            self._unknown_seen += 1
            self._tell_unknown(utc_ns, events)

    def _counts(self, line: Line) -> list[int]:
        """Return the count fields. Raises ValueError if they are not `detectors` counts."""
        fields = line.fields
        n = self._detectors
        if len(fields) != n:
            fields = _without_stamp(fields)
            if len(fields) != n:
                raise ValueError(f"{len(line.fields)} fields, expected {n}")
        # As nearly every line is: fields of six digits behind a code of two letters. A line holds nothing but ASCII.
        if len(line.raw) == 2 + 7 * n and line.raw[2::7] == "," * n and "".join(fields).isdigit():
            return [int(f) for f in fields]
        if len({*map(len, fields)}) > 1 and any(f[:1] == "0" and len(f) > 1 for f in fields):
            # A serial line that drops a byte leaves a plausible count: padded fields are all of one width.
            raise ValueError(f"fields of {sorted({len(f) for f in fields})} digits, padded ones are of one width")
        return [_count(f) for f in fields]

    # ---- passages

    def _occupied(self, line: Line, utc_ns: int, events: list[Event]) -> _Passage:
        """Return the open passage, after opening one if the portal was vacant; keep the line in it.

        Its `last_ns` is when the line arrived. Within a passage time does not run backwards: a clock that is set back
        holds still until the passage is over, which is then marked.
        """
        passage = self._passage
        if passage is not None and len(passage.raw) >= MAX_PASSAGE_LINES <= passage.lines:
            passage.faults["too_long"] = None
            self._leave("timed_out", utc_ns, events)
            passage = None
        if passage is None:
            self._sequence += 1
            passage = _Passage(f"occupancy-{self._sequence}-{utc_ns}", utc_ns)
            passage.faults.update(dict.fromkeys(code for code, _ in self._faults.values()))
            if not self._vacant_seen:
                passage.faults["start_not_seen"] = None
            passage.faults.update(self._unread_at_entry)
            if self._gamma_background is not None and utc_ns - self._gamma_background_ns > BACKGROUND_AGE_NS:
                passage.faults["background_old"] = None
            self._passage = passage
            simulated = self._settings is not None and self._settings.simulated
            entered = Occupancy(phase="entered", utc_ns=utc_ns, source_ref=passage.source_ref, simulated=simulated)
            events.append(entered)
        if utc_ns < passage.last_ns - self._interval_ns:
            passage.faults["clock_stepped"] = None
        if utc_ns - passage.last_ns > QUIET_NS and passage.gamma:
            passage.pause(utc_ns)
        passage.last_ns = max(passage.last_ns, utc_ns)
        passage.raw.append(line.raw)
        return passage

    def _on_gamma(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        counts = self._counts(line)
        passage = self._occupied(line, utc_ns, events)
        alarm = line.code == "GA"
        passage.gamma.append(counts)
        passage.gamma_alarm.append(alarm)
        passage.gamma_arrival.append(passage.last_ns)
        events.append(CountBlock(utc_ns=utc_ns, series="gamma", counts=np.array([counts], np.int64), alarm=alarm))

    def _on_neutron(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        counts = self._counts(line)
        passage = self._occupied(line, utc_ns, events)
        alarm = line.code == "NA"
        passage.neutron.append(counts)
        passage.neutron_alarm.append(alarm)
        passage.neutron_arrival.append(passage.last_ns)
        events.append(CountBlock(utc_ns=utc_ns, series="neutron", counts=np.array([counts], np.int64), alarm=alarm))

    def _on_speed(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        if not 2 <= len(_without_stamp(line.fields)) <= 4:  # more of them: two lines that lost what was between them
            raise ValueError(f"{len(line.fields)} fields, expected seconds per foot, mph, km/h, 0")
        mph = _decimal(line.fields[1])
        self._occupied(line, utc_ns, events).mph.append(mph)

    def _on_end(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """GX: the passage is complete; its number may tell that the portal was restarted."""
        if not 2 <= len(_without_stamp(line.fields)) <= 4:
            raise ValueError(f"{len(line.fields)} fields, expected number, neutron background, 0, 0")
        number, neutron_milli = _count(line.fields[0]), _count(line.fields[1])
        if self._passage is None and line.raw == self._end_raw:
            raise ValueError("the end line of the last passage once more, with nothing between")
        self._part(self._unaccounted(number), events)
        missed = self._missed(number)
        if self._number is not None and number <= self._number and not self._anew:
            self._begin_epoch(utc_ns)  # an equal number too: the key (epoch, number) must name one passage
        late, self._broken_off, self._number = self._broken_off > 0, 0, number
        self._broken_before, self._anew = 0, False
        if self._passage is None and late:
            self._vacant_seen = True
            return  # the passage that it ends was given up before
        if self._passage is None:  # nothing of the passage was seen but its end: it must not be lost for that
            self._vacant_seen = False
        passage = self._occupied(line, utc_ns, events)
        if missed > 0:
            passage.faults["passages_missed"] = None
        self._tell_numbers(missed, number, utc_ns, events)
        self._leave("complete", utc_ns, events, number, neutron_milli / 1000.0)
        self._vacant_seen, self._end_raw = True, line.raw

    def _missed(self, number: int) -> int:
        """Return how many occupancies the portal counted since the last GX that no record is of.

        A set-up block alone does not tell a restart from a portal that greets each client with it: the count does. One
        that goes on says what was missed on the way; one that fell began again at 1.
        """
        before = self._number
        if before is None or number == before:  # a counter that stands still counts nothing
            return 0
        if number > before:
            return number - before - 1 - self._broken_off
        return number - 1 - (self._broken_off - self._broken_before)

    def _tell_numbers(self, missed: int, number: int, utc_ns: int, events: list[Event]) -> None:
        if missed > 0:
            text = f"occupancy {number} follows, {missed} before it were not seen; check the link"
            events.append(Health(utc_ns=utc_ns, component="number", state="degraded", text=text))
        elif self._numbers_missing:
            text = f"occupancy {number} follows the one before"
            events.append(Health(utc_ns=utc_ns, component="number", state="ok", text=text))
        self._numbers_missing = missed > 0

    def _begin_epoch(self, utc_ns: int) -> None:
        """The portal counts anew. Named by time, so that a lane that was itself restarted uses no name again."""
        self.boot_epoch = max(self.boot_epoch + 1, utc_ns // NANOSECONDS)

    def _vacant(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """A code that only a vacant portal sends: end a passage that had no GX."""
        passage = self._passage
        if passage is not None:
            passage.keep(line.raw)
            if line.code in FAULTS:
                passage.faults[line.code] = None
            self._leave("aborted", utc_ns, events)
        self._vacant_seen = True
        self._unread_at_entry = {}

    def _check_timeout(self, utc_ns: int, events: list[Event]) -> None:
        if self._passage is not None and utc_ns - self._passage.last_ns >= self._timeout_ns:
            self._leave("timed_out", utc_ns, events)

    def _leave(
        self,
        reason: EndReason,
        utc_ns: int,
        events: list[Event],
        number: int | None = None,
        neutron_total: float | None = None,
    ) -> None:
        """End the open passage and tell its record."""
        if number is None:
            self._part(None, events)
        passage, self._passage = self._passage, None
        assert passage is not None
        self._vacant_seen = False
        self._unread_at_entry = {}
        self._broken_off += reason != "complete"
        arrival = passage.gamma_arrival
        if len(arrival) >= BUFFERED_LINES and arrival[BUFFERED_LINES - 1] - arrival[0] > BURST_NS:
            passage.faults["start_not_seen"] = None
        if self._gamma_lost(passage, reason == "complete", utc_ns, events):
            passage.faults["lines_lost"] = None
        if reason == "complete" and _neutrons_lost(passage, utc_ns):
            passage.faults["lines_lost"] = None
        if _lines_lost(passage.neutron_arrival, NEUTRON_INTERVAL_NS, 0):
            passage.faults["lines_lost"] = None
        self._look_for_repeats(passage, utc_ns, events)
        windows = self._paired_windows(passage, utc_ns, events)
        windows_alarm = self._windows_alarm(passage)
        # A passage that timed out ended with its last line, not when that was noticed.
        end_ns = passage.last_ns if reason == "timed_out" else max(passage.last_ns, utc_ns)
        record = PortalRecord(
            start_utc_ns=passage.start_ns,
            end_utc_ns=end_ns,
            gamma=self._table(passage.gamma),
            neutron=self._table(passage.neutron),
            gamma_alarm=np.array(passage.gamma_alarm, np.bool_),
            neutron_alarm=np.array(passage.neutron_alarm, np.bool_),
            gamma_arrival_ns=np.array(passage.gamma_arrival, np.int64),
            gamma_start_utc_ns=self._gamma_start(passage),
            neutron_arrival_ns=np.array(passage.neutron_arrival, np.int64),
            neutron_start_utc_ns=index_start(passage.neutron_arrival, NEUTRON_INTERVAL_NS, 0),
            gamma_windows=windows,
            gamma_windows_background=None if windows is None else self._windows_background_of(windows),
            gamma_windows_alarm=windows_alarm,
            gamma_background=self._gamma_background,
            neutron_background=self._best_neutron_background(neutron_total),
            gamma_interval_s=self._interval_ns / NANOSECONDS,
            settings=self._settings,
            number=number,
            boot_epoch=self.boot_epoch,
            speed_kmh=_speed_kmh(passage.mph),
            end_reason=reason,
            faults=tuple(passage.faults),
            raw_lines=tuple(passage.raw),
        )
        events.append(Occupancy(phase="left", utc_ns=max(end_ns, utc_ns), source_ref=passage.source_ref, record=record))

    def _look_for_repeats(self, passage: _Passage, utc_ns: int, events: list[Event]) -> None:
        """Mark a passage in which lines came more than once, and tell when that begins and ends.

        They stay counted: a line that came twice looks like two that are alike, and a real one must not be dropped.
        """
        repeated = _repeated(passage.raw)
        if repeated:
            passage.faults["line_repeated"] = None
        if bool(repeated) != self._repeats:
            self._repeats = bool(repeated)
            text = f"{repeated} count lines came more than once in one passage; check for two receivers on one wire"
            state: Literal["ok", "degraded"] = "degraded" if repeated else "ok"
            words = text if repeated else "no count line of a passage came more than once"
            events.append(Health(utc_ns=utc_ns, component="repeats", state=state, text=words))

    def _gamma_lost(self, passage: _Passage, complete: bool, utc_ns: int, events: list[Event]) -> bool:
        """Return True if gamma lines of the passage were lost.

        Its time from the first line to GX tells that to the line, whatever the network held back. Where an end is
        missing, or this is another kind of portal, the time between its lines must do: one line's worth of it where
        every passage takes longer, so that a portal which loses a line in each is not taken for another kind.
        """
        arrival = passage.gamma_arrival
        if len(arrival) > BURST_LINES and complete:
            whole = "start_not_seen" not in passage.faults
            too_long = whole and self._lasted_too_long(passage, utc_ns, events)
            if too_long or (whole and not self._unusual):
                return too_long
            if utc_ns - arrival[-1] > QUIET_NS:  # GX follows the last line within 0.3 s
                return True
        beyond = ONE_LINE if self._unusual and complete else 1.25
        return _lines_lost(arrival, self._interval_ns, BURST_LINES, beyond)

    def _lasted_too_long(self, passage: _Passage, utc_ns: int, events: list[Event]) -> bool:
        """Return True if a whole passage took more time than its gamma lines account for.

        A portal whose every passage takes more is of another kind than the recorded one, or loses lines in each: that
        is told as its health, and its shortest passage becomes the measure.
        """
        over_ns = utc_ns - passage.start_ns - len(passage.gamma_arrival) * self._interval_ns
        usual = min(self._over_ns) if 3 * len(self._over_ns) >= WHOLE_PASSAGES else WHOLE_NS
        self._over_ns.append(over_ns)
        if (usual > WHOLE_NS + WHOLE_REACH_NS) != self._unusual:
            self._unusual = not self._unusual
            text = (
                f"every passage takes {(usual - WHOLE_NS) / NANOSECONDS:.2f} s more than its gamma lines account for: "
                "lines are lost in each, or this is another kind of portal; compare its lines with what arrives"
            )
            state: Literal["ok", "degraded"] = "degraded" if self._unusual else "ok"
            words = text if self._unusual else "passages are as long again as their gamma lines account for"
            events.append(Health(utc_ns=utc_ns, component="line count", state=state, text=words))
        return over_ns > (usual if self._unusual else WHOLE_NS) + WHOLE_REACH_NS

    # ---- two passages in one

    def _unaccounted(self, number: int) -> int | None:
        """Return how many occupancies the portal counted that no record is of, None where that cannot be known."""
        if self._number is None or self._anew or number <= self._number:
            return None
        missing = number - self._number - 1
        return missing if not (missing and self._broken_off) else None

    def _part(self, unaccounted: int | None, events: list[Event]) -> None:
        """Part the open passage where another vehicle's lines begin, if it holds two.

        What was told of its lines as they came stays told; the first part ends `aborted`, without a number.
        """
        passage = self._passage
        while passage is not None and unaccounted != 0:
            quiets = [q for q in passage.quiets if self._burst(passage, q)]
            sure = [q for q in quiets if passage.gamma_arrival[q.lengths["gamma_arrival"]] - q.next_ns > ENTRY_NS]
            quiet = next(iter(sure or [q for q in quiets if self._out_of_step(passage, q, unaccounted is None)]), None)
            if quiet is None:
                return
            later = passage.cut(quiet)
            passage.quiets.clear()
            self._leave("aborted", passage.last_ns, events)
            self._vacant_seen = True
            again: list[Event] = []
            for line, utc_ns in later:
                self._take_again(line, utc_ns, again)
            events += [e for e in again if not isinstance(e, CountBlock)]
            unaccounted = None if unaccounted is None else unaccounted - 1
            passage = self._passage

    def _take_again(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """Take a line for the passage that it really belongs to; it was counted and told before."""
        try:
            take = self._take.get(line.code)
            if take is not None:
                take(line, utc_ns, events)
            elif not line.code:
                raise ValueError
            elif self._passage is not None:
                self._passage.keep(line.raw)
                if line.code not in EXTENSION_CODES:
                    self._passage.faults["unknown_line"] = None
        except ValueError:  # told when it came
            if self._passage is not None:
                self._passage.keep(line.raw, "damaged")
                self._passage.faults["damaged_line"] = None
        passage = self._passage
        if passage is not None and passage.quiets:
            passage.remember(line, utc_ns)

    def _burst(self, passage: _Passage, quiet: _Quiet) -> bool:
        """Return True if as many intervals as a portal buffers come at once after the pause.

        So do lines that the network held back. But an entry begins with a speed or neutron line and its burst comes
        0.2 s later, while all that was held back comes together (`sure`); and what was held back falls into step
        with the lines before the pause (`_out_of_step`).
        """
        at, arrival = quiet.lengths["gamma_arrival"], passage.gamma_arrival
        first = at + BUFFERED_LINES
        return len(arrival) > first and arrival[first - 1] - arrival[at] <= BURST_NS

    def _out_of_step(self, passage: _Passage, quiet: _Quiet, alone: bool) -> bool:
        """Return True if the lines after the pause cannot be those that were to come.

        alone : the portal's count does not say that there is another vehicle
        """
        at, arrival, step = quiet.lengths["gamma_arrival"], passage.gamma_arrival, self._interval_ns
        end = min([len(arrival)] + [n for q in passage.quiets if (n := q.lengths["gamma_arrival"]) > at])
        steady = range(at + BURST_LINES, min(end, at + BURST_LINES + 5))
        if not steady or arrival[steady[0]] - arrival[at] < BURST_NS:
            return False  # more at once than a portal buffers
        # The least late of them: those of its own burst are late.
        before = min(arrival[i] - i * step for i in range(max(0, at - BURST_LINES), at))
        offset = abs(median(arrival[i] - i * step for i in steady) - before)
        return offset > (OFFSET_ALONE_NS if alone else OFFSET_NS)

    def _table(self, rows: list[list[int]]) -> npt.NDArray[np.int64]:
        return np.array(rows, np.int64).reshape(len(rows), self._detectors)

    def _best_neutron_background(self, total: float | None) -> npt.NDArray[np.float64] | None:
        """Return counts/s: per detector from NB1; else the total of GX, one number; else NB.

        NB is cut to whole counts per detector and often reads 0: a background of whole numbers is a lower bound.
        """
        if self._neutron_background is not None:
            return self._neutron_background
        return self._neutron_truncated if total is None else np.array([total], np.float64)

    def _gamma_start(self, passage: _Passage) -> int:
        """Return when the first gamma interval began, by sample index.

        Arrival tells when an interval ended only where the portal runs live: the first lines were buffered and come
        at once, up to 1 s late. Every later line gives one estimate, arrival minus the intervals up to its end; their
        median is the start. Lines played faster than life (a rig at 20 x) move it towards the last arrival, and the
        record's end may then lie before the end of the last interval.
        """
        start = index_start(passage.gamma_arrival, self._interval_ns, BURST_LINES)
        return passage.start_ns if start is None else start

    # ---- energy windows

    def _on_windows(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """AS: counts per energy window. Unofficial, so one that cannot be read costs the windows, not the passage."""
        passage = self._passage
        if passage is None:
            return
        fields = _without_stamp(line.fields)
        kept = passage.keep(line.raw)
        try:
            if not 1 <= len(fields) <= MAX_WINDOWS:
                raise ValueError(f"{len(fields)} fields, expected 1 to {MAX_WINDOWS}")
            row = [_count(f) for f in fields]
        except ValueError:
            passage.windows_unread = True
            return
        if kept:
            passage.windows.append((len(passage.gamma), row))

    def _on_windows_background(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """AB1: counts/s per energy window before entry. One that cannot be read leaves none, not an old one."""
        if self._passage is not None:
            self._passage.keep(line.raw)
        try:
            self._windows_background = np.array([_decimal(f) for f in _without_stamp(line.fields)], np.float64)
        except ValueError:
            self._windows_background = None

    def _on_windows_alarm(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """AA: the vendor's window algorithm alarms in the interval of the last gamma line."""
        if self._passage is None:
            self._unknown_seen += 1  # an alarm without a vehicle: nothing known sends it
            self._tell_unknown(utc_ns, events)
            return
        self._passage.keep(line.raw)
        if self._passage.windows_alarm[-1:] != [len(self._passage.gamma)]:  # up to three lines per interval
            self._passage.windows_alarm.append(len(self._passage.gamma))

    def _paired_windows(self, passage: _Passage, utc_ns: int, events: list[Event]) -> npt.NDArray[np.int64] | None:
        """Return `(intervals, windows)`, None unless every interval has its row; tell when that changes.

        A live AS follows its GS. The burst at entry has six GS and then fifteen AS: the last of them belongs to the
        last GS, and the nine that reach further back than any GS stay in the raw lines.
        """
        if not passage.windows and not passage.windows_unread:
            return None
        found: dict[int, list[int]] = {}
        before = 0
        for at, group in groupby(passage.windows, key=itemgetter(0)):
            rows = [row for _, row in group]
            for back in range(min(at - before, len(rows))):
                found[at - 1 - back] = rows[-1 - back]
            before = at
        whole = len(found) == len(passage.gamma) and len({len(row) for row in found.values()}) == 1
        if whole == self._windows_missing:
            self._windows_missing = not whole
            seen = f"energy-window lines (AS) can be read for {len(found)} of {len(passage.gamma)} intervals"
            state: Literal["ok", "degraded"] = "ok" if whole else "degraded"
            text = seen if whole else f"{seen}: energy windows are not used"
            events.append(Health(utc_ns=utc_ns, component="windows", state=state, text=text))
        return np.array([found[i] for i in range(len(found))], np.int64) if whole else None

    def _windows_background_of(self, windows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        background = self._windows_background
        return background if background is not None and background.shape == windows.shape[1:] else None

    @staticmethod
    def _windows_alarm(passage: _Passage) -> npt.NDArray[np.bool_] | None:
        """Return `(intervals,) bool`; one before the first gamma line counts for the first."""
        if passage.windows_alarm and not passage.gamma:
            passage.faults["window_alarm"] = None
        if not passage.gamma or not (passage.windows_alarm or passage.windows):
            return None
        flags = np.zeros(len(passage.gamma), np.bool_)
        flags[[max(0, n - 1) for n in passage.windows_alarm]] = True
        return flags

    # ---- vacancy

    def _on_gamma_background(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        told = self._counts(line)
        self._vacant(line, utc_ns, events)
        if self._gamma_background is not None and any(map(_jumped, self._gamma_background.tolist(), told)):
            self._unread_at_entry["background_jumped"] = None
        counts = np.array([told], np.float64)
        self._gamma_background, self._gamma_background_ns = counts[0], utc_ns
        events.append(CountBlock(utc_ns=utc_ns, series="gamma_background", counts=counts))
        self._clear("gamma", utc_ns, events)
        if self._unknown_told_ns is not None or self._damaged_told_ns is not None:
            self._tell_unknown(utc_ns, events)
            self._tell_damaged(utc_ns, events)

    def _on_neutron_background(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        counts = np.array([self._counts(line)], np.float64)
        self._vacant(line, utc_ns, events)
        self._neutron_truncated = counts[0]
        events.append(CountBlock(utc_ns=utc_ns, series="neutron_background", counts=counts))
        self._clear("neutron", utc_ns, events)

    def _on_exact_neutron_background(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        if len(line.fields) < self._detectors:
            raise ValueError(f"{len(line.fields)} fields, expected {self._detectors}")
        background = np.array([_decimal(f) for f in line.fields[: self._detectors]], np.float64)
        self._neutron_background = background
        if self._passage is not None:
            self._passage.keep(line.raw)
        events.append(CountBlock(utc_ns=utc_ns, series="neutron_background", counts=background[np.newaxis]))

    def _on_fault(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        self._vacant(line, utc_ns, events)
        component, words = FAULTS[line.code]
        if self._faults.get(component, ("", 0))[0] != line.code:
            self._clear(component, utc_ns, events)
            self._faults[component] = line.code, utc_ns
            text = f"{words}: {line.raw}"
            events.append(Health(utc_ns=utc_ns, component=component, state="fault", text=text))

    def _on_tamper(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """TT or TC, at any time: the code decides, its fields differ between sources."""
        if self._passage is not None:
            self._passage.keep(line.raw)
        if line.code == "TC":
            self._clear("tamper", utc_ns, events)
            return
        if self._passage is not None:
            self._passage.faults["TT"] = None
        if "tamper" not in self._faults:
            self._faults["tamper"] = "TT", utc_ns
            text = f"{FAULTS['TT'][1]}: {line.raw}"
            events.append(Health(utc_ns=utc_ns, component="tamper", state="fault", text=text))

    def _clear(self, component: str, utc_ns: int, events: list[Event]) -> None:
        if component in self._faults:
            code, since_ns = self._faults.pop(component)
            text = f"{FAULTS[code][1]}: over, {_lasted(since_ns, utc_ns)}"
            events.append(Health(utc_ns=utc_ns, component=component, state="ok", text=text))

    def _on_setup(self, line: Line, utc_ns: int, events: list[Event]) -> None:
        """One of the five set-up lines; the first of a block begins a new boot epoch and voids the old settings."""
        if not self._in_setup or line.code in self._setup:
            self._in_setup = True
            if self._passage is not None:
                self._leave("aborted", utc_ns, events)
            self._begin_epoch(utc_ns)
            self._anew, self._broken_before = True, self._broken_off
            self._setup, self._setup_values, self._settings = {}, {}, None
        self._setup[line.code] = line
        self._setup_values.update(_setup_values(line))
        if {"nsigma", "algorithm_mask"} <= self._setup_values.keys():  # SG1 and SG2 hold the alarm rule
            values = dict(self._setup_values)
            unknown = (None, None)
            levels = (*values.pop("master_levels", unknown), *values.pop("slave_levels", unknown))
            lines = tuple(x.raw for x in self._setup.values())
            self._settings = PortalSettings(**values, gamma_levels=levels, lines=lines)

    # ---- what could not be read

    def _damaged(self, problem: str, raw: str, utc_ns: int, events: list[Event]) -> None:
        self.damaged_lines += 1
        self._damaged_example = f"{problem}, in {raw[:80]!r}"
        self._unread_at_entry["damaged_line"] = None
        if self._passage is not None:
            self._passage.keep(raw, "damaged")
            self._passage.faults["damaged_line"] = None
        self._tell_damaged(utc_ns, events)

    def _tell_damaged(self, utc_ns: int, events: list[Event]) -> None:
        """Tell unreadable lines at once, then at most once a minute; tell when a minute passed without."""
        told_ns = self._damaged_told_ns
        if told_ns is not None and utc_ns - told_ns < REPORT_EVERY_NS:
            return
        new = self.damaged_lines - self._damaged_told
        if new:
            text = f"{new} lines could not be read, last: {self._damaged_example}; check cable, baud rate and port"
            events.append(Health(utc_ns=utc_ns, component="line", state="degraded", text=text))
            self._damaged_told, self._damaged_told_ns = self.damaged_lines, utc_ns
        elif told_ns is not None:
            self._damaged_told_ns = None
            events.append(Health(utc_ns=utc_ns, component="line", state="ok", text="all lines can be read again"))

    def _tell_unknown(self, utc_ns: int, events: list[Event]) -> None:
        """Tell unknown codes at once, then at most once a minute while they come."""
        if self._unknown_told_ns is not None and utc_ns - self._unknown_told_ns < REPORT_EVERY_NS:
            return
        new = self._unknown_seen - self._unknown_told
        self._unknown_told, self._unknown_told_ns = self._unknown_seen, utc_ns if new else None
        if new:
            seen = [f"{c} {n}" for c, n in self.codes.items() if c == "AA" or c not in _CERTAIN]
            text = f"unknown codes kept raw and skipped, lines so far: {', '.join(seen[:12])}"
            events.append(Health(utc_ns=utc_ns, component="codes", state="ok", text=text))


def _without_stamp(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fields without the stamp that a receiver in between may have added."""
    last = fields[-1] if fields else ""
    return fields[:-1] if 5 <= len(last) <= 40 and ("-" in last[1:] or ":" in last) else fields


def _jumped(before: float, count: int) -> bool:
    """Return True where a detector's background cannot be the next line's after one of `before` counts/s.

    A mean of 20 s cannot change by more in the 5 s between two lines: a digit is damaged, or all has changed.
    """
    return abs(count - before) > BACKGROUND_STEP * max(before, count) + 6 * math.sqrt(max(before, 1.0))


def _lasted(since_ns: int, utc_ns: int) -> str:
    """Say how long something lasted and since when."""
    since = dt.datetime.fromtimestamp(since_ns // NANOSECONDS, dt.UTC)
    return f"{(utc_ns - since_ns) / NANOSECONDS:.1f} s since {since:%Y-%m-%dT%H:%M:%SZ}"


def index_start(arrival: Sequence[int], step_ns: int, burst: int) -> int | None:
    """Return when the first interval began, from when each interval's line arrived; None without a line.

    arrival : UTC nanoseconds in order
    burst : lines at the start whose arrival says nothing of their time
    """
    if not arrival:
        return None
    if len(arrival) > burst + 2:
        return int(median(arrival[i] - (i + 1) * step_ns for i in range(burst, len(arrival))))
    return min(a - (i + 1) * step_ns for i, a in enumerate(arrival))  # a line can only be late


def _lines_lost(arrival: list[int], step_ns: int, burst: int, beyond: float = 1.25) -> bool:
    """Return True if the steady part lasted longer than its number of lines, by `beyond` of a step and more.

    There is no sequence number, so a lost line shows only in time. The medians of five lines at both ends are
    compared, because one late line is the network's doing.
    """
    if len(arrival) < burst + 10:
        return False
    lag = [a - i * step_ns for i, a in enumerate(arrival)]
    early, late = median(lag[burst : burst + 5]), max(median(lag[-5:]), min(lag[-2:]))
    if lag[-1] - early > max(QUIET_NS, 1.25 * step_ns):
        return True
    # The last line of the burst is live: of the first lines it is the least late.
    live = min(lag[:burst], default=early)
    return max(late - early, early - live) > beyond * step_ns


def _repeated(raw: Sequence[str]) -> int:
    """Return how many count lines of a passage the wire repeated.

    Neutron lines are a second apart with gamma lines between them: two in a row that are alike are one. Speed lines of
    several axles may be alike. Where all gamma lines are alike it is the portal that is stuck.
    """
    if not any(map(eq, raw, islice(raw, 1, None))) or len({x for x in raw if x[:2] in ("GS", "GA")}) < REPEATED_RUN:
        return 0
    found = 0
    for line, alike in groupby(raw):
        more = sum(1 for _ in alike) - 1
        if not 0 < more < REPEATED_RUN or line[:3] not in ("GS,", "GA,", "NS,", "NA,"):
            continue
        counted = sum(int(f) for f in line.split(",")[1:] if f.isdecimal())
        found += more if line[0] == "N" or counted >= REPEATED_COUNTS else 0
    return found


def _neutrons_lost(passage: _Passage, end_ns: int) -> bool:
    """Return True if a passage had time for more neutron lines than came, or a second between two is missing."""
    arrival = passage.neutron_arrival
    if not arrival:
        return False
    late_ns = NEUTRON_INTERVAL_NS + NEUTRON_REACH_NS
    over_ns = end_ns - arrival[0] - (len(arrival) - 1) * NEUTRON_INTERVAL_NS
    if over_ns > late_ns or arrival[0] - passage.start_ns > late_ns:
        return True
    # Just short of that a gap decides; a line that was only held back is followed by the next one sooner.
    gaps = [b - a for a, b in pairwise((*arrival, arrival[-1] + NEUTRON_INTERVAL_NS))]
    missing = any(g > 1.6e9 and after > 0.8e9 for g, after in pairwise(gaps))
    return missing and over_ns > NEUTRON_INTERVAL_NS - NEUTRON_REACH_NS // 2


def _speed_kmh(mph: list[float]) -> float | None:
    """Return the median speed after outliers are rejected, None if none is left."""
    believable = [v for v in mph if 0 < v < MPH_LIMIT]
    return median(believable) * KMH_PER_MPH if believable else None


def _setup_values(line: Line) -> dict[str, Any]:
    """Return what one set-up line says, by the names of PortalSettings. Raises ValueError for the alarm rule's fields.

    Those of other fields that cannot be read are not told; the line itself is kept in `PortalSettings.lines`.

    SG1: gamma high fault, low fault, intervals, hold-in, NSigma, placeholder; SG2: detectors on line, master LLD, ULD,
    relay, algorithm mask, software letter; SG3: slave LLD, ULD, background time, sigma, firmware; SN1: neutron high
    fault, max intervals, alpha, zmax, sequential intervals, background time; SN2: master LLD, ULD, slave LLD, ULD.
    """
    f = (*line.fields, "")  # SG3 and SN2 have five fields
    if len(line.fields) < 5:
        raise ValueError(f"{len(line.fields)} fields, expected at least 5")
    if line.code == "SG1":
        intervals, nsigma = _count(f[2]), _decimal(f[4])
        if not 1 <= intervals <= 100 or not 0 < nsigma <= 100:
            raise ValueError(f"{intervals} intervals and NSigma {nsigma}, expected 1 to 100 and above 0 to 100")
        return {
            "gamma_high_fault": _count(f[0]),
            "gamma_low_fault": _count(f[1]),
            "gamma_intervals": intervals,
            "hold_in_intervals": _count(f[3]),
            "nsigma": nsigma,
        }
    if line.code == "SG2":
        if not _MASK.fullmatch(f[4]):
            raise ValueError(f"algorithm mask {f[4][:8]!r}, expected four of 0 and 1")
        on = f[0] if 1 <= len(f[0]) <= 16 and set(f[0]) <= {"0", "1"} else ""
        levels = {"master_levels": (_told(_decimal, f[1]), _told(_decimal, f[2]))}
        return {"algorithm_mask": f[4], "gamma_detectors_on": on, "relay_output": _told(_count, f[3]),
                "software": f[5][:8], **levels}  # fmt: skip
    if line.code == "SG3":
        return {
            "slave_levels": (_told(_decimal, f[0]), _told(_decimal, f[1])),
            "gamma_background_s": _told(_count, f[2]),
            "gamma_background_sigma": _told(_decimal, f[3]),
            "firmware": f[4],
        }
    if line.code == "SN1":
        names = ("max_intervals", "alpha", "zmax", "sequential_intervals", "background_s")
        rest = {f"neutron_{name}": _told(_count, text) for name, text in zip(names, f[1:6], strict=True)}
        return {"neutron_high_fault": _count(f[0]), **rest}
    return {"neutron_levels": tuple(_told(_decimal, text) for text in f[:4])}


_N = TypeVar("_N", int, float)


def _told(read: Callable[[str], _N], text: str) -> _N | None:
    try:
        return read(text)
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------------------
# Daily files


class _Clock:
    """Stamps of one daily file to UTC nanoseconds.

    date : first day of a file in the no-date form
    utc_offset : hours east of UTC where the stamp does not say
    """

    def __init__(self, path: Path, date: dt.date | None, utc_offset_h: float) -> None:
        self._path = path
        self._date = date
        self._zone = dt.timezone(dt.timedelta(hours=utc_offset_h))
        self._days = 0
        self._last_time_s = -1
        self._midnights: dict[tuple[str, str | None], int] = {}
        self._minute = ("", "", 0)  # of a dated stamp: text before its seconds, after them, UTC nanoseconds

    def utc_ns(self, stamp: str) -> int | None:
        """Return the instant of `stamp`, None if it is none. Raises DataError if its date is unknown."""
        # Nearly every stamp is of the minute of the one before and differs in `SS.mmm` only: a third of a file's time.
        head, tail, minute_ns = self._minute
        if head and len(stamp) == 23 + len(tail) and stamp[:17] == head and stamp[23:] == tail and stamp[19] == ".":
            digits = stamp[17:19] + stamp[20:23]
            if digits.isdigit() and digits.isascii() and digits < "60":
                return minute_ns + int(digits) * 1_000_000
        instant = self._read(stamp)
        thousandths = stamp[20:23].isdigit() and not stamp[23:24].isdigit()
        if instant is not None and thousandths and stamp[16] == ":" and stamp[19] == ".":
            self._minute = (stamp[:17], stamp[23:], instant - int(stamp[17:19] + stamp[20:23]) * 1_000_000)
        return instant

    def _read(self, stamp: str) -> int | None:
        if match := _DATED.fullmatch(stamp):
            day, hour, minute, second, fraction, zone = match.groups()
            time_s = _time_s(hour, minute, second)
            midnight = self._midnights.get((day, zone)) or self._midnight(day, zone)
        elif match := _DATELESS.fullmatch(stamp):
            hour, minute, second, fraction = match.groups()
            time_s = _time_s(hour, minute, second)
            midnight = None if time_s is None else self._midnight_before(time_s)
        else:
            return None
        if time_s is None or midnight is None:
            return None
        return midnight + time_s * NANOSECONDS + _fraction_ns(fraction)

    @property
    def state(self) -> tuple[int, int]:
        """What dateless stamps have told so far, to go back to where one is not believed."""
        return self._days, self._last_time_s

    @state.setter
    def state(self, value: tuple[int, int]) -> None:
        self._days, self._last_time_s = value

    def _midnight_before(self, time_s: int) -> int:
        """Return the midnight before a time of day without date."""
        if time_s < self._last_time_s - 12 * 3600:
            self._days += 1  # midnight has passed; a smaller step back is the receiver's clock being set
        self._last_time_s = time_s
        first = dt.datetime.combine(self._first_date(), dt.time(), self._zone)
        return (int(first.timestamp()) + self._days * 86_400) * NANOSECONDS

    def _midnight(self, day: str, zone: str | None) -> int | None:
        try:
            year, month, dom = (int(n) for n in day.split("-"))
            if year not in YEARS:
                return None
            at = dt.datetime(year, month, dom, tzinfo=_zone(zone) if zone else self._zone)
        except ValueError:
            return None
        if len(self._midnights) > 16:  # a file of damaged stamps must not grow it
            self._midnights.clear()
        midnight = self._midnights[day, zone] = int(at.timestamp()) * NANOSECONDS
        return midnight

    def _first_date(self) -> dt.date:
        if self._date is None:
            match = _DATE_IN_NAME.search(self._path.name)
            try:
                self._date = dt.date(*(int(n) for n in match.groups())) if match else None
            except ValueError:
                self._date = None
        if self._date is None:
            raise DataError(
                f"{self._path}: stamps without a date, and no date like 2026-01-31 in the file name; "
                "put the day into its name"
            )
        return self._date


def _zone(text: str) -> dt.timezone:
    """Return the zone of `-07`, `+0530`, `+05:30` or `Z`. Raises ValueError."""
    if text == "Z":
        return dt.UTC
    digits = text[1:].replace(":", "")
    hours, minutes = (int(digits), 0) if len(digits) <= 2 else (int(digits[:-2]), int(digits[-2:]))
    offset = dt.timedelta(hours=hours, minutes=minutes)
    return dt.timezone(-offset if text[0] == "-" else offset)


def _time_s(hour: str, minute: str, second: str) -> int | None:
    """Return seconds since midnight, None for no time of day; 60 is a leap second."""
    h, m, s = int(hour), int(minute), int(second)
    return (h * 60 + m) * 60 + s if h < 24 and m < 60 and s <= 60 else None


def _fraction_ns(digits: str | None) -> int:
    """Return nanoseconds of a decimal fraction of up to nine digits."""
    return int(digits.ljust(9, "0")) if digits else 0


def iter_daily_file(
    path: str | Path,
    *,
    date: dt.date | None = None,
    utc_offset_h: float = 0.0,
    decoder: PortalDecoder | None = None,
    stream: BinaryIO | None = None,
) -> Iterator[Event]:
    """Yield the events of a daily file as the stamps drive the decoder, in constant memory.

    date : day of the first line where stamps have none and the file name has none
    utc_offset_h : hours east of UTC where stamps do not say
    stream : the file, where it is open already; it is not closed

    A passage still open at the end of the file ends as `link_lost`. Raises DataError if the file cannot be read, is a
    spectroscopic daily file, or its date cannot be known.
    """
    path = Path(path)
    decoder = decoder or PortalDecoder()
    clock = _Clock(path, date, utc_offset_h)
    utc_ns: int | None = None
    latest_ns = 0
    back = stands = False
    doubted: int | None = None
    for number, (line, over_long) in enumerate(_lines_of(path, stream), 1):
        if line[:3] in ("S1,", "S2,"):
            raise DataError(
                f"{path} line {number}: {line[:40]!r} belongs to a spectroscopic daily file, whose counts mean "
                "something else; this reader takes portal daily files (GB, NB, GS, GX) only"
            )
        text, comma, stamp = line.rpartition(",")
        state = clock.state
        at = clock.utc_ns(stamp.strip()) if comma else None
        leaps = at is not None and utc_ns is not None and at - latest_ns > _STAMP_LEAP_NS
        if at is not None and leaps and (doubted is None or abs(at - doubted) > _STAMP_LEAP_NS):
            # A portal is never silent for so long: a damaged digit, unless the next stamp says the same.
            doubted, at, clock.state = at, None, state
            line = text
        if at is not None:
            utc_ns, doubted = at, None
            if back != (at < latest_ns - (0 if back else _STAMP_BACK_NS)):
                back = not back
                yield _clock_health(back, number, at, latest_ns)
            latest_ns = max(latest_ns, at)
        else:
            text = line  # no stamp: it came when the line before it came
        if events := decoder.take_line(text, utc_ns or 0, over_long):
            for event in events:
                if isinstance(event, Occupancy) and event.record is not None and _stood(event.record) != stands:
                    stands = not stands
                    yield _standing_health(stands, number, event.utc_ns)
                yield event
    yield from decoder.lost(utc_ns or 0)


def _clock_health(back: bool, number: int, at_ns: int, latest_ns: int) -> Health:
    if back:
        text = (
            f"line {number}: stamps go back by {(latest_ns - at_ns) / NANOSECONDS:.1f} s: the receiver's clock was set"
        )
        return Health(utc_ns=at_ns, component="clock", state="degraded", text=text)
    text = f"line {number}: stamps have caught up with those before the clock was set"
    return Health(utc_ns=at_ns, component="clock", state="ok", text=text)


def _stood(record: PortalRecord) -> bool:
    """Return True if the stamps of a passage lie closer than its counts took: then they tell neither age nor loss."""
    counted_ns = (record.gamma.shape[0] - BURST_LINES) * record.gamma_interval_s * NANOSECONDS
    return bool(record.end_utc_ns - record.start_utc_ns < STANDING_SHARE * counted_ns)


def _standing_health(stands: bool, number: int, utc_ns: int) -> Health:
    state: Literal["ok", "degraded"] = "degraded" if stands else "ok"
    text = "stamps stand still: a passage took less time than its counts; lost lines and old backgrounds cannot be seen"
    text = f"line {number}: {text if stands else 'stamps run again'}"
    return Health(utc_ns=utc_ns, component="clock", state=state, text=text)


def _lines_of(path: Path, opened: BinaryIO | None) -> Iterator[tuple[str, bool]]:
    cutter = LineCutter()
    try:
        with path.open("rb") if opened is None else contextlib.nullcontext(opened) as stream:
            # An editor may have marked the file as UTF-8; the mark is no part of its first line.
            for line, over_long in cutter.push(stream.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)):
                yield line.decode("latin-1"), over_long
            while data := stream.read(1 << 16):
                for line, over_long in cutter.push(data):
                    yield line.decode("latin-1"), over_long
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if rest := cutter.drain():
        yield rest.decode("latin-1"), False


def read_daily_file(path: str | Path, *, date: dt.date | None = None, utc_offset_h: float = 0.0) -> list[PortalRecord]:
    """Return the records of a daily file, in order. Raises DataError as `iter_daily_file` does."""
    events = iter_daily_file(path, date=date, utc_offset_h=utc_offset_h)
    return [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]


def sniff(head: bytes) -> bool:
    """Return True if `head`, the first bytes of a file, looks like portal lines.

    True for a spectroscopic daily file too: the reader then says why it refuses it, which an unknown format cannot.
    """
    cut = LineCutter().push(head[:8192].removeprefix(BOM_UTF8))
    lines = [parse_line(line.decode("latin-1")) for line, over_long in cut if not over_long]
    known = sum(bool(x.fields) and x.code in _KNOWN | EXTENSION_CODES | _SPECTROSCOPIC for x in lines)
    return known >= 1 and 2 * known >= len(lines)
