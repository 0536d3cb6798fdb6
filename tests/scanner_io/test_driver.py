"""Drivers by name, and the driver that is made of a channel and a decoder."""

import sys
import threading
import time
import types
from importlib.metadata import EntryPoint

import msgspec
import pytest

from scanner_io import driver as drivers
from scanner_io.channel import MemoryChannel
from scanner_io.driver import Driver, LinkDriver
from scanner_io.errors import ConfigError, DataError, LinkLost
from scanner_io.model import DeviceInfo, Health

INFO = DeviceInfo(vendor="test", model="echo", kinds=("portal",))


def told(text, utc_ns=0):
    return Health(utc_ns=utc_ns, component="test", state="ok", text=text)


class Lines:
    """A decoder: every line is an event; what is open at the end is an event too."""

    def __init__(self):
        self.rest = b""
        self.idle_s = []

    def feed(self, data, utc_ns):
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [told(line.decode(), utc_ns) for line in lines]

    def idle(self, utc_ns, silent_s):
        self.idle_s.append(silent_s)
        return [told("idle", utc_ns)] if len(self.idle_s) == 3 else []

    def lost(self, utc_ns):
        rest, self.rest = self.rest, b""
        return [told(f"cut off: {rest.decode()}", utc_ns)] if rest else []


@pytest.fixture
def made():
    channel = MemoryChannel("memory:test")
    decoder = Lines()
    source = LinkDriver(channel, decoder, INFO, silence_s=0.4)
    assert isinstance(source, Driver)
    yield source, channel, decoder
    source.close()


def texts(source, count):
    return [source.read(1.0).text for _ in range(count)]


# -- a channel and a decoder ---------------------------------------------------------------------------------------


def test_events_of_any_split(made):
    source, channel, _ = made
    assert source.open() is INFO
    assert not source.pausable
    for piece in (b"on", b"e\ntwo\nth", b"ree\n"):
        channel.put(piece)
    assert texts(source, 3) == ["one", "two", "three"]


def test_events_carry_the_time_of_arrival(made):
    source, channel, _ = made
    source.open()
    before = time.time_ns()
    channel.put(b"now\n")
    assert before <= source.read(1.0).utc_ns <= time.time_ns()


def test_time_out_is_none_and_the_decoder_hears_of_silence(made):
    source, _, decoder = made
    source.open()
    for timeout_s in (0.0, 0.1):
        began_s = time.monotonic()
        assert source.read(timeout_s) is None
        assert timeout_s * 0.9 <= time.monotonic() - began_s < timeout_s + 0.3
    assert decoder.idle_s == sorted(decoder.idle_s)
    assert source.read(0.0).text == "idle"


def test_bytes_that_are_no_event_do_not_prolong_a_read(made):
    source, channel, _ = made
    source.open()
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.02):
            channel.put(b".")

    sender = threading.Thread(target=trickle)
    sender.start()
    began_s = time.monotonic()
    assert source.read(0.2) is None
    took_s = time.monotonic() - began_s
    stop.set()
    sender.join()
    assert 0.15 < took_s < 0.5


def test_what_the_loss_ends_is_told_before_the_loss(made):
    source, channel, _ = made
    source.open()
    channel.put(b"whole\nhalf")
    channel.hang_up()
    assert texts(source, 2) == ["whole", "cut off: half"]
    for _ in range(2):
        with pytest.raises(LinkLost, match=r"closed the connection.*last bytes b'whole\\nhalf'"):
            source.read(0.1)


def test_silence_is_a_lost_link(made):
    source, channel, _ = made
    source.open()
    channel.put(b"half")
    deadline_s = time.monotonic() + 5
    events = []
    with pytest.raises(LinkLost, match=r"echo memory:test: no byte for 0\.\d s.*b'half'; check the device"):
        while time.monotonic() < deadline_s:
            event = source.read(0.05)
            events += [] if event is None else [event.text]
    assert events[-1] == "cut off: half"


def test_opens_again_after_a_loss_and_keeps_its_decoder(made):
    source, channel, decoder = made
    source.open()
    channel.hang_up()
    with pytest.raises(LinkLost):
        source.read(0.5)
    source.close()
    source.open()
    channel.put(b"back\n")
    assert texts(source, 1) == ["back"]
    assert source._decoder is decoder


def test_what_was_not_fetched_before_closing_is_not_lost(made):
    source, channel, _ = made
    source.open()
    channel.put(b"one\ntwo\n")
    assert texts(source, 1) == ["one"]
    source.close()
    source.open()
    assert texts(source, 1) == ["two"]


def test_closed_in_mid_passage_ends_the_passage(made):
    source, channel, _ = made
    source.open()
    channel.put(b"half")
    assert source.read(0.05) is None
    source.close()
    assert source.read(0.1).text == "cut off: half"
    with pytest.raises(LinkLost, match="not open"):
        source.read(0.1)


def test_not_opened_yet(made):
    with pytest.raises(LinkLost, match="not open"):
        made[0].read(0.1)


def test_acknowledging_loses_and_repeats_nothing(made):
    source, channel, _ = made
    source.acknowledge("before it is open")
    source.open()
    channel.put(b"one\ntwo\n")
    assert texts(source, 1) == ["one"]
    source.acknowledge("one")
    assert texts(source, 1) == ["two"]
    assert source.read(0.05) is None


# -- by name -------------------------------------------------------------------------------------------------------


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration with a channel."""

    address: str = "memory:by-name"


@pytest.fixture
def register(monkeypatch):
    """Return a function that makes a driver module known as if a package had been installed."""
    entries = []
    monkeypatch.setattr(drivers, "entry_points", lambda group: [e for e in entries if e.group == group])

    def add(name, **contents):
        module = types.ModuleType(f"scanlane_test_{name}")
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entries.append(EntryPoint(name=name, value=module.__name__, group=drivers.GROUP))
        return module

    return add


def kinds(config):
    return ("portal",)


def test_own_drivers_are_known():
    known = drivers.names()
    assert known["file_drop"] == "drivers.file_drop"
    assert list(known) == sorted(known)
    for name in known:
        assert hasattr(drivers.load(name), "connect")


def test_unknown_names_say_what_is_known():
    with pytest.raises(ConfigError, match=r"driver 'acme': not known; known are .*file_drop"):
        drivers.load("acme")


def test_nothing_is_known(register):
    with pytest.raises(ConfigError, match="known are none"):
        drivers.load("acme")


def test_a_driver_of_another_package(register):
    module = register("acme", Config=Config, kinds=kinds, connect=lambda config, channel: (config, channel))
    assert drivers.load("acme") is module
    config, channel = drivers.connect("acme", Config())
    assert config == Config()
    assert isinstance(channel, MemoryChannel)
    assert channel.address == "memory:by-name"


def test_a_module_that_is_not_a_driver(register):
    register("half", Config=Config)
    with pytest.raises(ConfigError, match=r"scanlane_test_half has no kinds and no connect"):
        drivers.load("half")


def test_a_module_that_cannot_be_imported(register, monkeypatch):
    module = register("gone")
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(ConfigError, match=r"module scanlane_test_gone cannot be imported: ModuleNotFoundError: "):
        drivers.load("gone")


def test_a_module_of_an_extra_that_is_not_installed_says_which(monkeypatch):
    for name in ("pydicom", "pydicom.uid"):  # whichever of the two other tests have already imported
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "drivers.dicom_store", raising=False)
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError: .*pydicom.*; pip install 'scanlane\[dicom\]'"):
        drivers.load("dicom_store")


def test_a_module_that_fails_while_it_is_imported(register, monkeypatch, tmp_path):
    module = register("broken")
    monkeypatch.delitem(sys.modules, module.__name__)
    (tmp_path / f"{module.__name__}.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"scanlane_test_broken cannot be imported: .*division by zero"):
        drivers.load("broken")


def test_a_configuration_of_another_driver(register):
    register("acme", Config=Config, kinds=kinds, connect=lambda config, channel: None)
    with pytest.raises(ConfigError, match="config is dict, expected Config"):
        drivers.connect("acme", {"address": "memory:x"})


def test_no_address_no_channel(register):
    class Plain(msgspec.Struct):
        path: str = "x"

    register("plain", Config=Plain, kinds=kinds, connect=lambda config, channel: channel)
    assert drivers.connect("plain", Plain()) is None


def test_an_address_that_cannot_be_understood(register):
    register("acme", Config=Config, kinds=kinds, connect=lambda config, channel: None)
    with pytest.raises(ConfigError, match="expected tcp://HOST:PORT"):
        drivers.connect("acme", Config(address="nonsense"))


def test_a_driver_that_refuses_its_configuration(register):
    def refuse(config, channel):
        raise DataError("no such firmware")

    register("acme", Config=Config, kinds=kinds, connect=refuse)
    with pytest.raises(ConfigError, match="driver 'acme': no such firmware"):
        drivers.connect("acme", Config())


# -- the clock -----------------------------------------------------------------------------------------------------


class SetClock:
    """Time as a test has it: `utc` is set by hand, monotonic time runs on."""

    def __init__(self, monkeypatch):
        self.monotonic_ns = 5_000_000_000
        self.utc_ns = 1_700_000_000_000_000_000
        monkeypatch.setattr(drivers.time, "time_ns", lambda: self.utc_ns)
        monkeypatch.setattr(drivers.time, "monotonic_ns", lambda: self.monotonic_ns)
        monkeypatch.setattr(drivers.time, "monotonic", lambda: self.monotonic_ns / 1e9)

    def run(self, seconds, drift_s=0.0):
        self.monotonic_ns += int(seconds * 1e9)
        self.utc_ns += int((seconds + drift_s) * 1e9)


def test_a_clock_that_is_slewed_is_followed(monkeypatch):
    clock, steady = SetClock(monkeypatch), drivers.SteadyClock()
    for _ in range(100):
        assert steady.stamp(occupied=True) == (clock.utc_ns, [])
        clock.run(1.0, drift_s=0.0005)


@pytest.mark.parametrize("step_s", [-7200.0, -3.0, 0.6, 3600.0])
def test_a_clock_that_is_set_in_vacancy_is_followed_and_told_once(monkeypatch, step_s):
    clock, steady = SetClock(monkeypatch), drivers.SteadyClock()
    steady.stamp(occupied=False)
    clock.run(1.0, drift_s=step_s)
    utc_ns, (told,) = steady.stamp(occupied=False)
    assert utc_ns == clock.utc_ns and (told.component, told.state) == ("clock", "degraded")
    assert f"set by {step_s:+.1f} s" in told.text
    clock.run(59.0)
    assert steady.stamp(occupied=False) == (clock.utc_ns, [])
    clock.run(1.5)
    _, (over,) = steady.stamp(occupied=False)
    assert (over.component, over.state) == ("clock", "ok") and not steady.stepped


@pytest.mark.parametrize("step_s", [-7200.0, 3600.0])
def test_a_clock_that_is_set_in_a_passage_is_followed_after_it(monkeypatch, step_s):
    clock, steady = SetClock(monkeypatch), drivers.SteadyClock()
    first_ns, _ = steady.stamp(occupied=True)
    clock.run(0.2, drift_s=step_s)
    second_ns, told = steady.stamp(occupied=True)
    clock.run(0.2)
    third_ns, more = steady.stamp(occupied=True)
    assert (second_ns - first_ns, third_ns - second_ns) == (200_000_000, 200_000_000)
    assert [e.state for e in told] == ["degraded"] and more == [] and steady.stepped
    assert steady.stamp(occupied=False) == (clock.utc_ns, [])


def test_a_device_that_must_be_told_to_speak_is_told_after_every_opening():
    channel = MemoryChannel("memory:test")
    source = LinkDriver(channel, Lines(), INFO, silence_s=0.4, greeting=b"RUN\r\n")
    for times in (1, 2):
        source.open()
        assert channel.written == times * [b"RUN\r\n"]
        source.close()
