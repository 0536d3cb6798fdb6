"""Stream V2: a scripted detector pushes, and its counts come out; what is lost, changed or damaged is said."""

import time

import cbor2
import h5py
import hdf5plugin
import lz4.block
import numpy as np
import psutil
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from drivers import stream_v2
from drivers.stream_v2 import Config, Series, decode
from scanner_io.errors import DataError, LinkLost
from scanner_io.line_detector import LineDetector
from scanner_io.model import Health, LineBlock, Rejected, ScanEnd, ScanStart
from tests.contract import DriverContract, Rig, check_order, drain

DUAL = LineDetector(energies=("low", "high"), air_lines=20)
CONFIG = Config(endpoint="tcp://127.0.0.1:1", detector=DUAL)
NOW_NS = 1_769_852_701_000_000_000
TAGS = {"<u1": 64, "<u2": 69, "<u4": 70}


def bslz4(values):
    """Return values as HDF5's bitshuffle filter stores them."""
    with h5py.File("made", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset(
            "v", data=values.ravel(), chunks=(values.size,), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        return bytes(made.id.read_direct_chunk((0,))[1])


def hdf5_lz4(values, block=1 << 16):
    data = values.tobytes()
    plain = [data[i : i + block] for i in range(0, len(data), block)]
    # what does not become shorter is stored as it is
    parts = [min(p, lz4.block.compress(p, store_size=False), key=len) for p in plain]
    head = len(data).to_bytes(8, "big") + block.to_bytes(4, "big")
    return head + b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def typed(values, compression=""):
    """Return an image as Stream V2 encodes it."""
    values = np.ascontiguousarray(values)
    content = values.tobytes()
    if compression:
        packed = bslz4(values) if compression == "bslz4" else hdf5_lz4(values)
        content = cbor2.CBORTag(56500, [compression, values.itemsize, packed])
    return cbor2.CBORTag(40, [list(values.shape), cbor2.CBORTag(TAGS[values.dtype.str.replace("|", "<")], content)])


def message(kind, **fields):
    return cbor2.dumps(cbor2.CBORTag(55799, {"type": kind, **fields}))


def counts_of(lines=200, channels=64, seed=0, kind="<u2"):
    rng = np.random.default_rng(seed)
    image = rng.normal(50_000 if kind != "<u1" else 200, 3, (2, lines, channels))
    image[:, lines // 4 : -lines // 4, 10:-10] *= 0.3
    return image.astype(kind)


def series(values, *, number=1, step=20, compression="", unique="01H"):
    """Return the messages of one series of (energies, lines, channels)."""
    names = [f"threshold_{e + 1}" for e in range(len(values))]
    made = [message("start", series_id=number, series_unique_id=unique, channels=names, number_of_images=99)]
    for image, first in enumerate(range(0, values.shape[1], step)):
        data = {n: typed(v[first : first + step], compression) for n, v in zip(names, values, strict=True)}
        made.append(
            message(
                "image", series_id=number, image_id=image, start_time=[first, 2000], stop_time=[first, 2000], data=data
            )
        )
    return [*made, message("end", series_id=number)]


VALUES = counts_of()


def fed(messages, config=CONFIG):
    made = Series(config)
    return [e for m in messages for e in made.feed(m, NOW_NS, 0.0)]


def image_of(events, energy):
    return np.concatenate([e.counts[energy] for e in events if isinstance(e, LineBlock)])


def texts(events):
    return [e.text for e in events if isinstance(e, Health)]


class Detector:
    """A scripted detector: pushes what it is told to."""

    def __init__(self, port=0) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.set(zmq.LINGER, 0)
        for attempt in range(100):
            try:
                self.socket.bind(f"tcp://127.0.0.1:{port or '*'}")
                break
            except zmq.ZMQError:
                if attempt == 99:
                    raise
                time.sleep(0.02)
        self.endpoint = self.socket.get(zmq.LAST_ENDPOINT).decode()

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def push(self, messages) -> None:
        for m in messages:
            self.socket.send(m)

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


class StreamRig(Rig):
    driver = "stream_v2"
    expects = (ScanStart, LineBlock, ScanEnd)

    def __init__(self) -> None:
        self.number = 0
        self.detector = Detector()
        self.port = self.detector.port

    @property
    def config(self) -> Config:
        return Config(endpoint=f"tcp://127.0.0.1:{self.port}", detector=DUAL)

    def play(self) -> None:
        self.number += 1
        self.detector.push(series(counts_of(seed=self.number), number=self.number))

    def break_link(self) -> None:
        self.detector.close()

    def mend_link(self) -> None:
        self.detector = Detector(self.port)

    def close(self) -> None:
        self.detector.close()


class TestStreamV2(DriverContract):
    driver = "stream_v2"

    @pytest.fixture
    def rig(self):
        made = StreamRig()
        yield made
        made.close()


@pytest.mark.parametrize("compression", ["", "bslz4", "lz4"])
@pytest.mark.parametrize("kind", ["<u1", "<u2", "<u4"])
def test_counts_of_every_type_and_compression(kind, compression):
    values = counts_of(kind=kind)
    events = fed(series(values, compression=compression))
    check_order(events)
    for energy in (0, 1):
        assert np.array_equal(image_of(events, energy), values[energy])
    start, end = events[0], events[-1]
    assert start.source_ref == "1@01H" and start.detector.energies == ("low", "high") and start.utc_ns == NOW_NS
    assert (end.reason, end.dropped_columns, texts(events)) == ("complete", 0, [])
    blocks = [e for e in events if isinstance(e, LineBlock)]
    assert blocks[1].column_utc_ns[0] == NOW_NS + 20 * 500_000


def test_columns_of_an_image_as_lines_and_channels_by_name():
    values = VALUES.transpose(0, 2, 1)
    made = [message("start", series_id=1, channels=["a", "b"])]
    data = {"b": typed(values[0]), "a": typed(values[1])}
    made += [message("image", series_id=1, image_id=0, data=data), message("end", series_id=1)]
    events = fed(made, Config(endpoint="tcp://x:1", detector=DUAL, lines="columns", channels=("b", "a")))
    assert np.array_equal(image_of(events, 0), VALUES[0]) and np.array_equal(image_of(events, 1), VALUES[1])


def test_lost_and_repeated_images():
    made = series(VALUES)
    events = fed(made[:3] + made[2:4] + made[6:])
    assert [e.first_column for e in events if isinstance(e, LineBlock)] == [0, 20, 40, 100, 120, 140, 160, 180]
    assert any("came again" in t for t in texts(events)) and any(
        "2 images are lost before image 5" in t for t in texts(events)
    )
    assert events[-1].dropped_columns == 40


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"threshold_1": typed(VALUES[0, :10]), "threshold_2": typed(VALUES[1, :10])}, "after one of"),
        ({"threshold_1": typed(VALUES[0, :20])}, "channels"),
        ({"threshold_1": typed(VALUES[0, :20]), "threshold_2": typed(np.full((20, 64), 70_000, "<u4"))}, "70000"),
        ({"threshold_1": 5, "threshold_2": 6}, "expected an image"),
        ({}, "channels"),
    ],
)
def test_an_image_that_does_not_fit_ends_the_scan_and_the_next_is_whole(replaced, words):
    made = series(VALUES)
    made[4] = message("image", series_id=1, image_id=3, data=replaced)
    events = fed([*made, *series(VALUES, number=2)])
    assert [e.reason for e in events if isinstance(e, ScanEnd)] == ["aborted", "complete"]
    assert any(words in t for t in texts(events)), texts(events)
    check_order(events)


def image_with(array):
    return message("image", series_id=1, image_id=3, data={"a": array})


def packed(algorithm, contents):
    return cbor2.CBORTag(69, cbor2.CBORTag(56500, [algorithm, 2, contents]))


DAMAGED = {
    "no CBOR": b"\xff\xfe\x00",
    "no map": cbor2.dumps([1, 2]),
    "deep": b"\x81" * 5000 + b"\x00",
    "short array": image_with(cbor2.CBORTag(40, [[9, 9], cbor2.CBORTag(69, b"ab")])),
    "bomb": image_with(packed("bslz4", (1 << 60).to_bytes(8, "big") + bytes(8))),
    "cut": image_with(packed("bslz4", bslz4(VALUES[0])[:-50])),
    "cut lz4": image_with(packed("lz4", hdf5_lz4(VALUES[0])[:-50])),
    "another code": image_with(packed("zip", b"x" * 20)),
    "no bytes": image_with(packed("bslz4", 1 << 40)),
    "block past the end": image_with(packed("bslz4", bslz4(VALUES[0])[:12] + b"\x7f" + bslz4(VALUES[0])[13:])),
    "bytes after the blocks": image_with(packed("bslz4", bslz4(VALUES[0]) + b"x")),
    "tiny blocks": image_with(packed("lz4", (4000).to_bytes(8, "big") + (16).to_bytes(4, "big") + bytes(900))),
    "negative shape": image_with(cbor2.CBORTag(40, [[-2, -1], cbor2.CBORTag(69, b"abcd")])),
    "many dimensions": image_with(cbor2.CBORTag(40, [[1] * 9000 + [2], cbor2.CBORTag(69, b"abcd")])),
    "endless size": image_with(cbor2.CBORTag(69, cbor2.CBORTag(56500, ["bslz4", float("inf"), bytes(20)]))),
    "more than its most": message(
        "image", data=[cbor2.CBORTag(69, cbor2.CBORTag(56500, ["lz4", 2, hdf5_lz4(np.zeros(1 << 24, "<u2"))]))] * 5
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_message_is_told_and_the_rest_is_given(name):
    made = series(VALUES)
    made[4] = DAMAGED[name]
    events = fed(made)
    assert events[-1].reason == "complete" and events[-1].dropped_columns == 20
    assert len(texts(events)) == 2


NONSENSE = {
    "a series that is an array": {"series_id": typed(VALUES[0, :2]), "image_id": 3},
    "a series that is a text": {"series_id": "1" * 9000, "image_id": 3},
    "a number that is none": {"series_id": 1, "image_id": None},
    "a number beyond any scan": {"series_id": 1, "image_id": 1 << 60},
    "a time beyond any scan": {"series_id": 1, "image_id": 3, "start_time": [1 << 62, 1]},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_numbers_that_no_detector_sends(name):
    made = series(VALUES)
    image = {"threshold_1": typed(VALUES[0, 60:80]), "threshold_2": typed(VALUES[1, 60:80])}
    made[4] = message("image", **{"data": image, **NONSENSE[name]})
    events = fed([*made, *series(VALUES, number=2)])
    ends = [e.reason for e in events if isinstance(e, ScanEnd)]
    assert ends == (["complete", "complete"] if "time" in name else ["aborted", "complete"])
    assert all(len(t) < 400 for t in texts(events))
    check_order(events)


def mutated(rng, message, others):
    """Return a message with some of its bytes flipped, cut, doubled, exchanged with another's, or made long heads."""
    made = bytearray(message)
    for _ in range(rng.integers(1, 5)):
        at, size = int(rng.integers(0, max(1, len(made)))), int(rng.integers(1, 20))
        if rng.random() < 0.5:
            at %= 120  # where the structure is
        match rng.integers(0, 6):
            case 0:
                made[at : at + 1] = bytes([int(rng.integers(0, 256))])
            case 1:
                del made[at : at + size]
            case 2:
                made[at:at] = made[at : at + size]
            case 3:
                made[at : at + 9] = bytes([(int(rng.integers(0, 8)) << 5) | 27]) + rng.bytes(8)
            case 4:
                other = others[rng.integers(0, len(others))]
                made[at : at + size] = other[at : at + size]
            case _:
                made = made[: max(1, at)]
    return bytes(made)


def test_ten_thousand_mutated_messages_do_no_harm():
    """No exception, no crash of the C code below, no memory that stays; and the series after them is whole."""
    rng = np.random.default_rng(8)
    small = VALUES[:, :40]
    seeds = [m for c in ("", "bslz4", "lz4") for m in series(small, compression=c)]
    seeds += [m for kind in ("<u1", "<u4") for m in series(counts_of(40, kind=kind), compression="bslz4")]
    driver = Series(Config(endpoint="tcp://x:1", detector=DUAL, max_message_mb=1))
    process, events, told = psutil.Process(), 0, 0
    for number in range(12_000):
        if number == 2000:
            before = process.memory_info().rss
        seed = seeds[rng.integers(0, len(seeds))]
        found = driver.feed(mutated(rng, seed, seeds) if number % 4 else seed, NOW_NS, 0.0)
        events += len(found)
        told += len(texts(found))
    assert process.memory_info().rss - before < 48 << 20
    assert events > 1000 and told > 0
    driver.end("aborted", NOW_NS)
    whole = [e for m in series(VALUES, number=77) for e in driver.feed(m, NOW_NS, 0.0)]
    check_order(whole)
    assert np.array_equal(image_of(whole, 0), VALUES[0]) and whole[-1].reason == "complete"


def test_a_flood_of_nonsense_is_told_a_few_times():
    events = fed([b"\xff"] * 5000)
    assert 16 < len(events) < 30 and "oddity" in events[-1].text


def test_what_can_be_queued_has_a_limit():
    with pytest.raises(ValueError, match="together at most"):
        Config(endpoint="tcp://x:1", queue=1000, max_message_mb=256)


@given(st.binary(max_size=300))
def test_foreign_bytes_never_raise_anything_else(data):
    try:
        told = decode(data)
    except DataError as error:
        assert str(error)
    else:
        assert isinstance(told["type"], str)


def test_a_series_without_images_and_one_without_its_beginning():
    (told,) = fed([message("start", series_id=1, channels=["a", "b"]), message("end", series_id=1)])
    assert isinstance(told, Rejected) and "without a single line" in told.reason
    events = fed(series(VALUES)[1:])
    assert events[-1].reason == "complete" and "beginning was not heard" in texts(events)[0]


def test_a_series_whose_start_was_missed_lies_where_its_lines_were_taken():
    events = fed(series(VALUES)[3:])  # the first image heard began 20 ms after the start, and took 10 ms
    start = next(e for e in events if isinstance(e, ScanStart))
    assert start.utc_ns == NOW_NS - 20 * 500_000
    assert next(e.utc_ns for e in events if isinstance(e, ScanEnd)) > NOW_NS


@pytest.mark.parametrize("reason", ["timed_out", "link_lost"])
def test_what_comes_of_a_series_after_it_was_given_up_is_a_scan_of_its_own(reason):
    made, messages = Series(CONFIG), series(VALUES)
    events = [e for m in messages[:5] for e in made.feed(m, NOW_NS, 0.0)] + made.end(reason, NOW_NS)
    events += [e for m in messages[5:] for e in made.feed(m, NOW_NS + 10**9, 9.0)]
    ends = [e for e in events if isinstance(e, ScanEnd)]
    assert [e.reason for e in ends] == [reason, "complete"] and ends[1].dropped_columns == 80
    assert np.array_equal(image_of(events, 0), VALUES[0])


def test_a_stream_that_stalls_and_one_that_has_nobody():
    detector = Detector()
    source = stream_v2.connect(Config(endpoint=detector.endpoint, detector=DUAL, scan_timeout_s=0.3))
    source.open()
    detector.push(series(VALUES)[:6])
    events = []
    deadline_s = time.monotonic() + 5
    while not any(isinstance(e, ScanEnd) for e in events) and time.monotonic() < deadline_s:
        event = source.read(0.1)
        events += [] if event is None else [event]
    assert events[-1].reason == "timed_out"
    detector.close()
    with pytest.raises(LinkLost):
        drain(source)[1].__class__ and source.read(0.1)
    source.close()


def test_nobody_there(monkeypatch):
    monkeypatch.setattr(stream_v2, "CONNECT_S", 0.2)
    source = stream_v2.connect(Config(endpoint="tcp://127.0.0.1:9", detector=DUAL))
    with pytest.raises(LinkLost, match="nobody pushes"):
        source.open()
