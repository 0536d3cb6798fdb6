"""A network cable that can be cut, at the level of packets: the daemon in a network namespace of its own.

Two TUN devices, one here and one in the namespace, and this process carries the packets from one to the other: late,
some not at all, no more than so many a second, or with a reset instead. So it needs no module of the kernel's traffic
control; it needs root and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from scanner_io.errors import ConfigError

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
MTU = 2048
HERE, THERE = "198.18.77.1", "198.18.77.2"
"""Of the range that RFC 2544 sets aside for tests of networks."""
MOST_WAITING = 200
"""Packets that a slow cable keeps each way before it drops what comes."""
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Cable(threading.Thread):
    """A cable from here to a namespace, `before` runs a command there. Use as a context manager.

    up, down : whether packets pass to the namespace, and from it
    refuses : every TCP packet is answered with RST, as by a firewall that forgot its connections
    delay_s, jitter_s, loss, bytes_per_s : each way
    """

    def __init__(self) -> None:
        """Lay it. Raises ConfigError in words where that is not allowed."""
        super().__init__(name="cable", daemon=True)
        self.name_of_space = f"scanlane-{os.getpid()}"
        self.before = ("ip", "netns", "exec", self.name_of_space)
        self.up = self.down = True
        self.refuses = False
        self.delay_s = self.jitter_s = self.loss = 0.0
        self.bytes_per_s = float("inf")
        self.carried = self.dropped = 0
        self._random = random.Random(8)  # noqa: S311 -- to be repeated
        self._due: list[tuple[float, int, int, bytes]] = []
        self._free_s = {False: 0.0, True: 0.0}
        self._number = 0
        self._ending = threading.Event()
        self._ends: list[int] = []
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self._take_up()
            why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            raise ConfigError([f"no network namespace can be had here: {why}"]) from error
        self.start()

    def _lay(self) -> None:
        if shutil.which("ip") is None:
            raise FileNotFoundError("the command `ip` is not installed")
        names = (f"sl{os.getpid()}a", f"sl{os.getpid()}b")
        _ip("netns", "add", self.name_of_space)
        for name in names:
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            self._ends.append(end)
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        there = ("-n", self.name_of_space)
        _ip("link", "set", names[1], "netns", self.name_of_space)
        _ip("address", "add", HERE, "peer", THERE, "dev", names[0])
        _ip(*there, "address", "add", THERE, "peer", HERE, "dev", names[1])
        _ip("link", "set", names[0], "up")
        _ip(*there, "link", "set", names[1], "up")
        _ip(*there, "link", "set", "lo", "up")

    def _take_up(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends = []
        if Path(f"/run/netns/{self.name_of_space}").exists():
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self.name_of_space)

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self.join()
        self._take_up()

    def heal(self) -> None:
        """Be a sound cable again."""
        self.up = self.down = True
        self.refuses = False
        self.delay_s = self.jitter_s = self.loss = 0.0
        self.bytes_per_s = float("inf")

    def run(self) -> None:
        """Carry packets until the block is left."""
        here, there = self._ends
        while not self._ending.is_set():
            wait_s = min(0.05, max(0.0, self._due[0][0] - time.monotonic())) if self._due else 0.05
            for end in select.select([here, there], [], [], wait_s)[0]:
                for _ in range(64):
                    try:
                        packet = os.read(end, MTU)
                    except BlockingIOError:
                        break
                    self._take(packet, end, there if end == here else here)
            while self._due and self._due[0][0] <= time.monotonic():
                self._give(heapq.heappop(self._due))

    def _take(self, packet: bytes, came_from: int, to: int) -> None:
        is_up = came_from == self._ends[0]
        if self.refuses:
            answer = reset_of(packet)
            if answer:
                self._give((0.0, 0, came_from, answer))
            return
        is_cut = not (self.up if is_up else self.down)
        waiting = sum(1 for due in self._due if due[2] == to) if self.bytes_per_s < float("inf") else 0
        if is_cut or waiting > MOST_WAITING or self._random.random() < self.loss:
            self.dropped += 1
            return
        # What was sent first arrives first, as on a cable.
        at_s = max(time.monotonic(), self._free_s[is_up]) + len(packet) / self.bytes_per_s
        self._free_s[is_up] = at_s
        late_s = self.delay_s + self._random.uniform(-self.jitter_s, self.jitter_s)
        self._number += 1
        heapq.heappush(self._due, (at_s + max(0.0, late_s), self._number, to, packet))

    def _give(self, due: tuple[float, int, int, bytes]) -> None:
        with suppress(OSError):  # the other end is not up any more, or its queue is full: a lost packet
            os.write(due[2], due[3])
            self.carried += 1


def reset_of(packet: bytes) -> bytes:
    """Return the RST that answers an IPv4 packet of TCP; nothing for anything else, and for a RST.

    Source: RFC 9293, 3.5.2: with an ACK its number is the sequence, without one what came is acknowledged.
    """
    start = (packet[0] & 15) * 4
    if packet[0] >> 4 != 4 or packet[9] != 6 or packet[start + 13] & RST:
        return b""
    here, there, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, start)
    length = len(packet) - start - (offset >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
    seq, ack, flags = (ack, 0, RST) if flags & ACK else (0, (seq + length) & 0xFFFFFFFF, RST | ACK)
    tcp = struct.pack("!HHIIBBHHH", there, here, seq, ack, 5 << 4, flags, 0, 0, 0)
    pseudo = packet[16:20] + packet[12:16] + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + packet[16:20] + packet[12:16]
    return ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:] + tcp


def _checksum(data: bytes) -> int:
    """Return the checksum of the internet. Source: RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True, text=True)  # noqa: S603, S607 -- of iproute2
