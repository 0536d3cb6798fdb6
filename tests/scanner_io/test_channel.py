"""Byte channels: a time-out is a value, a broken link is LinkLost, closing is always allowed."""

import contextlib
import os
import socket
import threading
import time

import pytest

from scanner_io.channel import MemoryChannel, SerialChannel, TcpChannel, open_channel
from scanner_io.errors import ConfigError, LinkLost


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


@pytest.fixture
def tcp(listener):
    """Return an open channel and the device's end of it."""
    channel = open_channel(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    channel.open()
    device, _ = listener.accept()
    with device, contextlib.closing(channel):
        yield channel, device


@pytest.fixture
def serial_line():
    """Return an open channel on a pseudo-terminal and the descriptor of the device's end."""
    device, line = os.openpty()
    channel = open_channel(f"serial://{os.ttyname(line)}?baud=19200")
    channel.open()
    try:
        yield channel, device
    finally:
        channel.close()
        os.close(line)
        with contextlib.suppress(OSError):  # a test may have pulled the cable
            os.close(device)


def timed(call):
    began_s = time.monotonic()
    return call(), time.monotonic() - began_s


def read_until(channel, size, limit_s=5.0):
    data = b""
    deadline_s = time.monotonic() + limit_s
    while len(data) < size and time.monotonic() < deadline_s:
        data += channel.read(0.1)
    return data


# -- tcp -----------------------------------------------------------------------------------------------------------


def test_tcp_carries_bytes_both_ways(tcp):
    channel, device = tcp
    device.sendall(b"GB,1,2,3,4\r\n")
    assert read_until(channel, 12) == b"GB,1,2,3,4\r\n"
    channel.write(b"x" * 300_000)
    assert device.recv(3) == b"xxx"


@pytest.mark.parametrize("timeout_s", [0.0, 0.1, -1.0])
def test_tcp_time_out_is_empty_bytes(tcp, timeout_s):
    data, took_s = timed(lambda: tcp[0].read(timeout_s))
    assert data == b""
    assert max(0.0, timeout_s) * 0.9 <= took_s < max(0.0, timeout_s) + 0.3


def test_tcp_reads_at_most_64_kib(tcp):
    channel, device = tcp
    sender = threading.Thread(target=device.sendall, args=(bytes(200_000),))
    sender.start()
    sizes = []
    while sum(sizes) < 200_000:
        sizes.append(len(channel.read(5.0)))
    sender.join()
    assert max(sizes) <= 65_536


def test_tcp_what_was_sent_before_the_end_is_read_before_it(tcp):
    channel, device = tcp
    device.sendall(b"last words")
    device.close()
    assert read_until(channel, 10) == b"last words"
    with pytest.raises(LinkLost, match="the device closed the connection"):
        channel.read(1.0)


def test_tcp_reset_is_link_lost(tcp):
    channel, device = tcp
    device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    device.close()
    with pytest.raises(LinkLost, match=f"{channel.address}"):
        channel.read(1.0)
    with pytest.raises(LinkLost, match="write"):
        for _ in range(100):
            channel.write(b"x" * 10_000)


def test_tcp_close_twice_and_before_open(listener):
    channel = open_channel(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    channel.close()
    channel.open()
    channel.close()
    channel.close()
    for call in (lambda: channel.read(0.1), lambda: channel.write(b"x")):
        with pytest.raises(LinkLost, match="not open"):
            call()


def test_tcp_opens_again(listener):
    channel = open_channel(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    for text in (b"first", b"second"):
        channel.open()
        with listener.accept()[0] as device:
            device.sendall(text)
            assert read_until(channel, len(text)) == text
    channel.close()


def test_tcp_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    channel = open_channel(f"tcp://127.0.0.1:{port}")
    with pytest.raises(LinkLost, match=f"tcp://127.0.0.1:{port}: cannot connect"):
        channel.open()
    channel.close()


def test_tcp_name_that_is_not_known():
    with pytest.raises(LinkLost, match="cannot connect"):
        open_channel("tcp://no-such-host.invalid:1601").open()


def test_tcp_slow_device_does_not_block_for_ever(tcp, monkeypatch):
    channel, _ = tcp
    monkeypatch.setattr("scanner_io.channel.CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(LinkLost, match="write of 100000000 bytes failed"):
        channel.write(bytes(100_000_000))


def test_tcp_keeps_alive(tcp):
    assert tcp[0]._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# -- serial --------------------------------------------------------------------------------------------------------


def test_serial_carries_bytes_both_ways(serial_line):
    channel, device = serial_line
    os.write(device, b"NS,0,1,0,0\r\n")
    assert read_until(channel, 12) == b"NS,0,1,0,0\r\n"
    channel.write(b"hello")
    assert os.read(device, 5) == b"hello"


def test_serial_time_out_is_empty_bytes(serial_line):
    for timeout_s in (0.0, 0.1):
        data, took_s = timed(lambda t=timeout_s: serial_line[0].read(t))
        assert data == b""
        assert timeout_s * 0.9 <= took_s < timeout_s + 0.3


def test_serial_bytes_of_any_value(serial_line):
    channel, device = serial_line
    every = bytes(range(256))
    os.write(device, every)
    assert read_until(channel, 256) == every


def test_serial_pulled_cable_is_link_lost(serial_line):
    channel, device = serial_line
    os.close(device)
    with pytest.raises(LinkLost, match="serial://"):
        channel.read(1.0)


def test_serial_cannot_be_opened(tmp_path):
    channel = open_channel(f"serial://{tmp_path / 'ttyNONE'}")
    with pytest.raises(LinkLost, match=r"cannot open.*baud rate"):
        channel.open()
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkLost, match="cannot open"):
        open_channel(f"serial://{tmp_path / 'file'}").open()


def test_serial_is_held_alone(serial_line):
    with pytest.raises(LinkLost, match="cannot open"):
        open_channel(serial_line[0].address).open()


def test_serial_close_twice_and_before_open():
    device, line = os.openpty()
    channel = open_channel(f"serial://{os.ttyname(line)}")
    channel.close()
    channel.open()
    channel.close()
    channel.close()
    for call in (lambda: channel.read(0.1), lambda: channel.write(b"x")):
        with pytest.raises(LinkLost, match="not open"):
            call()
    os.close(line)
    os.close(device)


# -- both: closing by another thread -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "serial_line", "memory"])
def test_close_during_a_read_ends_it(kind, request):
    if kind == "memory":
        channel = open_channel("memory:x")
        channel.open()
    else:
        channel, _ = request.getfixturevalue(kind)
    outcome = []

    def read():
        try:
            outcome.append(channel.read(5.0))
        except LinkLost as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.1)
    _, took_s = timed(lambda: (channel.close(), reader.join(10)))
    assert not reader.is_alive()
    assert took_s < 2.0, f"the read went on for {took_s:.1f} s after the channel was closed"
    assert isinstance(outcome[0], LinkLost) or outcome[0] == b""
    with pytest.raises(LinkLost):
        channel.read(0.0)


@pytest.mark.parametrize("kind", ["tcp", "serial_line"])
def test_a_descriptor_taken_over_by_another_file_is_not_read(kind, request):
    """A reader must not go on with a number that was closed and given to something else."""
    channel, _ = request.getfixturevalue(kind)
    seen = []

    def read():
        try:
            for _ in range(200):
                seen.append(channel.read(0.01))
        except LinkLost:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    channel.close()
    pipes = [os.pipe() for _ in range(20)]
    for _, into in pipes:
        os.write(into, b"foreign")
    reader.join(10)
    for pair in pipes:
        for end in pair:
            os.close(end)
    assert not any(seen), f"read foreign bytes {[s for s in seen if s]}"


# -- memory --------------------------------------------------------------------------------------------------------


def test_memory_gives_the_pieces_as_they_were_put():
    channel = open_channel("memory:rig")
    assert isinstance(channel, MemoryChannel)
    with pytest.raises(LinkLost, match="not open"):
        channel.read(0.0)
    channel.open()
    for piece in (b"one", b"two"):
        channel.put(piece)
    assert [channel.read(0.0), channel.read(0.1), channel.read(0.0)] == [b"one", b"two", b""]
    channel.write(b"asked")
    assert channel.written == [b"asked"]
    channel.hang_up()
    with pytest.raises(LinkLost, match="closed the connection"):
        channel.read(1.0)
    channel.close()
    channel.close()


def test_memory_time_out():
    channel = open_channel("memory:rig")
    channel.open()
    data, took_s = timed(lambda: channel.read(0.1))
    assert data == b""
    assert 0.09 <= took_s < 0.4


def test_memory_wakes_a_reader():
    channel = open_channel("memory:rig")
    channel.open()
    putter = threading.Timer(0.05, channel.put, (b"late",))
    putter.start()
    data, took_s = timed(lambda: channel.read(5.0))
    putter.join()
    assert data == b"late"
    assert took_s < 1.0


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("tcp://10.0.3.7:1601", TcpChannel),
        ("tcp://[::1]:1601", TcpChannel),
        ("tcp://portal-3.lan:65535", TcpChannel),
        ("serial:///dev/ttyUSB0?baud=9600", SerialChannel),
        ("serial:///dev/ttyS1", SerialChannel),
        ("memory:north", MemoryChannel),
    ],
)
def test_addresses(address, kind):
    channel = open_channel(address)
    assert isinstance(channel, kind)
    assert channel.address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.3.7:1601",
        "tcp://10.0.3.7",
        "tcp://:1601",
        "tcp://10.0.3.7:0",
        "tcp://10.0.3.7:65536",
        "tcp://10.0.3.7:abc",
        "tcp://[::1:1601",
        "udp://10.0.3.7:1601",
        "serial://",
        "serial:///dev/ttyUSB0?baud=fast",
        "serial:///dev/ttyUSB0?baud=0",
        "serial:///dev/ttyUSB0?baud=-9600",
        "serial://ttyUSB0",
        "serial:///dev/ttyUSB0?speed=19200",
        "tcp://10.0.3.7:1601/path",
    ],
)
def test_bad_addresses_are_told_with_what_is_expected(address):
    with pytest.raises(ConfigError, match=r"expected tcp://HOST:PORT, serial://.* or memory:NAME") as caught:
        open_channel(address)
    assert repr(address) in str(caught.value)
