"""The frame protocol of line detectors: what is sent is what is given; loss is counted, damage is passed over."""

import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.line_tcp import ALIVE, BEGIN, END, HEADER, LINES, Config, Decoder, frame
from scanner_io.errors import DataError, LinkLost
from scanner_io.line_detector import LineDetector, LineScan
from scanner_io.model import Health, LineBlock, Rejected, ScanEnd, ScanStart
from tests.contract import DriverContract, Rig, check_order, drain
from tests.rigs import PortalServer

START_NS = 1_769_852_701_000_000_000
DUAL = LineDetector(energies=("low", "high"), air_lines=20)
CONFIG = Config(address="tcp://127.0.0.1:1", detector=DUAL, mm_per_encoder_count=0.5)


def counts_of(lines=200, channels=64, energies=2, seed=0):
    """Return (lines, energies, channels) uint16: open beam, then something dense."""
    rng = np.random.default_rng(seed)
    image = rng.normal(50_000, 150, (lines, energies, channels))
    image[lines // 4 : -lines // 4, :, 10:-10] *= 0.3
    return image.astype("<u2")


def scan_frames(values, *, scan=1, sequence=0, step=10, utc_ns=START_NS, end=True):
    """Return the frames of one scan."""
    lines, energies, channels = values.shape
    common = {"energies": energies, "channels": channels, "scan": scan, "flags": 1, "period_ns": 500_000}
    frames = [frame(BEGIN, sequence=sequence, utc_ns=utc_ns, **common)]
    for first in range(0, lines, step):
        part = values[first : first + step]
        encoder = np.arange(len(part), dtype="<i4").tobytes()
        sequence += 1
        frames.append(
            frame(
                LINES, payload=encoder + part.tobytes(), sequence=sequence, first_line=first, lines=len(part),
                encoder=first, utc_ns=utc_ns + first * 500_000, **common,
            )
        )  # fmt: skip
    if end:
        frames.append(frame(END, sequence=sequence + 1, first_line=lines, utc_ns=utc_ns + lines * 500_000, scan=scan))
    return frames


VALUES = counts_of()
FRAMES = scan_frames(VALUES)


def image_of(events, energy):
    return np.concatenate([e.counts[energy] for e in events if isinstance(e, LineBlock)])


def texts(events):
    return [e.text for e in events if isinstance(e, Health)]


class LineRig(Rig):
    driver = "line_tcp"
    expects = (ScanStart, LineBlock, ScanEnd)

    def __init__(self) -> None:
        self.number = 0
        self.server = PortalServer([]).__enter__()

    @property
    def config(self) -> Config:
        return Config(address="memory:line_tcp", detector=DUAL)

    def connect(self):
        from drivers import line_tcp
        from scanner_io.channel import open_channel

        self.channel = open_channel("memory:line_tcp")
        return line_tcp.connect(self.config, self.channel)

    def play(self) -> None:
        self.number += 1
        for piece in scan_frames(VALUES, scan=self.number, sequence=1000 * self.number):
            self.channel.put(piece)

    def break_link(self) -> None:
        self.channel.hang_up()

    def mend_link(self) -> None:
        """A memory channel is whole as soon as it is opened."""

    def close(self) -> None:
        self.server.__exit__()


class TestLineTcp(DriverContract):
    driver = "line_tcp"

    @pytest.fixture
    def rig(self):
        made = LineRig()
        yield made
        made.close()


def test_the_golden_frame():
    """4c 4e 53 31 ... : every field at its place."""
    made = frame(LINES, energies=2, channels=3, sequence=4, scan=5, first_line=6, lines=1, flags=1, utc_ns=7,
                 period_ns=8, encoder=9, payload=bytes(range(16)))  # fmt: skip
    expected = (
        b"SLN1" b"\x02" b"\x02" b"\x03\x00" b"\x04\0\0\0" b"\x05\0\0\0" b"\x06\0\0\0" b"\x01\0" b"\x01\0"
        b"\x07\0\0\0\0\0\0\0" b"\x08\0\0\0" b"\x10\0\0\0" b"\x09\0\0\0\0\0\0\0" + bytes(range(16))
    )  # fmt: skip
    assert HEADER.size == 48
    assert made == expected + struct.pack("<I", zlib.crc32(expected))


def test_a_scan_is_given_as_it_was_sent():
    events = Decoder(CONFIG).feed(b"".join(FRAMES), START_NS)
    check_order(events)
    start, end = events[0], events[-1]
    for energy in (0, 1):
        assert np.array_equal(image_of(events, energy), VALUES[:, energy])
    assert start.utc_ns == START_NS and start.detector.energies == ("low", "high")
    assert np.allclose(start.detector.air[1], np.median(VALUES[:20, 1], axis=0)) and start.detector.flags == ()
    assert (end.reason, end.dropped_columns) == ("complete", 0)
    positions = np.concatenate([e.position_mm for e in events if isinstance(e, LineBlock)])
    assert np.array_equal(positions, 0.5 * np.arange(200))


@given(st.lists(st.integers(0, 12_000), max_size=6), st.binary(max_size=60))
def test_any_split_and_bytes_between_change_nothing(cuts, noise):
    decoder = Decoder(CONFIG)
    data = b"".join(FRAMES[:5]) + noise.replace(b"S", b"s") + b"".join(FRAMES[5:])
    events, at = [], 0
    for cut in [*sorted(cuts), len(data)]:
        events += decoder.feed(data[at:cut], START_NS)
        at = max(at, cut)
    assert np.array_equal(image_of(events, 1), VALUES[:, 1])
    assert bool(noise) == bool(texts(events))


@given(st.binary(max_size=400))
def test_foreign_bytes_never_raise(data):
    decoder = Decoder(CONFIG)
    decoder.feed(data, START_NS)
    decoder.feed(b"SLN1" + data, START_NS)
    events = decoder.feed(b"".join(scan_frames(VALUES, scan=9)) * 2, START_NS)
    assert any(isinstance(e, ScanEnd) for e in events)


@pytest.mark.parametrize("reboot", [False, True], ids=["goes on", "counts from 1 again"])
def test_what_comes_of_a_scan_after_the_link_was_lost_is_a_scan_of_its_own(reboot):
    decoder = Decoder(CONFIG)
    before = [*decoder.feed(b"".join(FRAMES[:8]), START_NS), *decoder.lost(START_NS)]
    rest = scan_frames(VALUES, utc_ns=START_NS + 10**9)[5:] if reboot else FRAMES[12:]
    after = decoder.feed(b"".join(rest), START_NS + 2 * 10**9)
    check_order([*before, *after], gaps=True)
    ends = [e for e in [*before, *after] if isinstance(e, ScanEnd)]
    assert [e.reason for e in ends] == ["link_lost", "complete"] and ends[0].source_ref != ends[1].source_ref
    assert ends[1].dropped_columns == (40 if reboot else 110)


def test_a_damaged_length_holds_up_no_good_frame():
    alive = bytearray(frame(ALIVE))
    alive[39] ^= 2  # 33 MB of payload
    events = Decoder(CONFIG).feed(bytes(alive) + b"".join(FRAMES), START_NS)
    assert "52 bytes were no whole frame" in texts(events)[0]
    assert np.array_equal(image_of(events, 0), VALUES[:, 0])


def test_good_frames_behind_one_that_never_becomes_whole_are_taken_when_the_link_is_lost():
    cut = frame(LINES, payload=bytes(4 + 4 * 64), lines=1, energies=2, channels=64)[:60]
    decoder = Decoder(CONFIG)
    good = b"".join(scan_frames(counts_of(10), step=5))
    decoder.feed(cut, START_NS)
    assert decoder.feed(good[:100], START_NS) == []
    events = decoder.lost(START_NS)
    assert [t.split(" were no whole")[0] for t in texts(events)] == ["60 bytes", "48 bytes"]
    assert "without a single line" in next(e.reason for e in events if isinstance(e, Rejected))


def test_a_clock_that_is_wrong_is_told_once_and_the_time_of_arrival_is_taken():
    decoder, behind = Decoder(CONFIG), START_NS + 40 * 10**9
    events = decoder.feed(b"".join(FRAMES), behind)
    events += decoder.feed(b"".join(scan_frames(VALUES, scan=2, sequence=22)), behind)
    starts = [e for e in events if isinstance(e, ScanStart)]
    assert [round((behind - s.utc_ns) / 1e6) for s in starts] == [5, 5]  # ten lines of half a millisecond
    assert [t.split(" this machine's")[0] for t in texts(events)] == ["its clock is 40.0 s behind"]
    right = decoder.feed(b"".join(scan_frames(VALUES, scan=3, sequence=44, utc_ns=behind)), behind)
    assert texts(right) == ["its clock is right again"]
    assert next(e.utc_ns for e in right if isinstance(e, ScanStart)) == behind


def test_lost_frames_are_counted_and_leave_their_gap():
    events = Decoder(CONFIG).feed(b"".join(FRAMES[:7] + FRAMES[9:]), START_NS)
    firsts = [e.first_column for e in events if isinstance(e, LineBlock)]
    assert firsts[5:8] == [50, 80, 90]
    assert next(e for e in events if isinstance(e, ScanEnd)).dropped_columns == 20
    assert "2 frames are lost before frame 9" in texts(events)[0]


def test_the_end_is_lost_lines_at_it_too():
    events = Decoder(CONFIG).feed(b"".join(FRAMES[:-3] + FRAMES[-1:]), START_NS)
    assert events[-1].dropped_columns == 20


def test_a_lost_beginning_is_no_lost_vehicle():
    events = Decoder(CONFIG).feed(b"".join(FRAMES[3:]), START_NS)
    assert isinstance(events[0], ScanStart) and events[1].first_column == 20
    assert events[-1].dropped_columns == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f[:60] + bytes([f[60] ^ 1]) + f[61:], "no whole frame"),
        (lambda f: f[:-8], "no whole frame"),
        (lambda f: f + f, "came again"),
        (lambda f: frame(9), "unknown kind 9"),
    ],
)
def test_damage_is_told_and_the_scan_goes_on(change, words):
    frames = [*FRAMES]
    frames[5] = change(frames[5])
    events = Decoder(CONFIG).feed(b"".join(frames), START_NS)
    assert any(words in text for text in texts(events))
    assert isinstance(events[-1], ScanEnd) and events[-1].reason == "complete"


def test_a_size_that_changes_in_mid_scan_ends_it_and_the_next_is_whole():
    other = scan_frames(counts_of(channels=32), scan=1, sequence=6)[6:]
    events = Decoder(CONFIG).feed(b"".join(FRAMES[:6] + other + scan_frames(VALUES, scan=2, sequence=99)), START_NS)
    ends = [e.reason for e in events if isinstance(e, ScanEnd)]
    assert ends == ["aborted", "complete"]
    check_order(events)


@pytest.mark.parametrize(
    "frames", [[FRAMES[0], FRAMES[-1]], [FRAMES[0], *scan_frames(VALUES, scan=2)]], ids=["empty", "empty, then next"]
)
def test_a_scan_without_a_line_is_told_as_a_passage(frames):
    events = Decoder(CONFIG).feed(b"".join(frames), START_NS)
    (told,) = [e for e in events if isinstance(e, Rejected)]
    assert "without a single line" in told.reason


def test_a_vehicle_in_the_first_lines_is_no_air():
    values = counts_of()
    values[5:12] //= 3
    start = Decoder(CONFIG).feed(b"".join(scan_frames(values)), START_NS)[0]
    assert {q.code for q in start.detector.flags} == {"air_not_measured"}


def test_a_clock_that_is_set_back_keeps_the_columns_in_order():
    frames = FRAMES[:8] + scan_frames(VALUES, utc_ns=START_NS - 10**10)[8:]
    check_order(Decoder(CONFIG).feed(b"".join(frames), START_NS))


def test_over_tcp_with_a_cut_and_a_device_that_reconnects(tmp_path):
    from drivers import line_tcp
    from scanner_io.channel import open_channel

    with PortalServer(FRAMES, drop_after=sum(map(len, FRAMES[:10])) + 7, split=700, stay=False) as server:
        source = line_tcp.connect(Config(address=server.address, detector=DUAL), open_channel(server.address))
        source.open()
        first, error = drain(source)
        assert isinstance(error, LinkLost) and first[-1].reason == "link_lost"
        source.close()
        source.open()
        second, _ = drain(source)
        source.close()
    assert [e.reason for e in second if isinstance(e, ScanEnd)] == ["complete"]
    assert np.array_equal(image_of(second, 0), VALUES[:, 0])


def test_silence_is_a_lost_link():
    from drivers import line_tcp
    from scanner_io.channel import open_channel

    with PortalServer([frame(ALIVE)]) as server:
        config = Config(address=server.address, detector=DUAL, silence_s=0.3)
        source = line_tcp.connect(config, open_channel(server.address))
        source.open()
        began_s = time.monotonic()
        _, error = drain(source)
        assert "no byte for" in str(error) and time.monotonic() - began_s < 2
        source.close()


@pytest.mark.parametrize("channels", [7, 8])
def test_frames_of_one_line(channels):
    """A line of a frame lies in one piece, and must not be a view of the buffer that is used again."""
    values = counts_of(40, channels)
    decoder = Decoder(Config(address="tcp://x:1", detector=DUAL))
    events = [e for f in scan_frames(values, step=1) for e in decoder.feed(f, START_NS)]
    assert [type(e) for e in (events[0], events[-1])] == [ScanStart, ScanEnd]
    assert np.array_equal(image_of(events, 0), values[:, 0]) and np.array_equal(image_of(events, 1), values[:, 1])


def test_what_is_no_line_of_a_scan_is_refused_by_name():
    scan = LineScan(DUAL, "1", "test")
    lines, times = np.ones((5, 8), np.uint16), np.arange(5)
    for counts, at, first, words in (
        ((lines,), times, None, "expected 2 of"), ((lines, lines[:, :4]), times, None, "expected 2 of"),
        ((lines, lines), times[:4], None, "with 4 times"), ((lines[:0], lines[:0]), times[:0], None, "with 0 times"),
        ((lines, lines), times, -1, "came again"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            scan.add(counts, at, first=first)
    assert scan.add((lines, lines), times) == [] and scan.next_line == 5  # air is measured on twenty
