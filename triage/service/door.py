"""The connections themselves: how many there are, and the means to end one.

ZeroMQ hands over messages and hides whom they come from. What it does not do, and a service on a network must: end the
connection of a key that was revoked, with what still waits in its queue; end those that connect and never say who they
are; keep room for the next one, for at the limit of file descriptors its thread spins and accepts nobody; and bound
messages, for its limit is one for each part, and it keeps parts without an end until no memory is left. So the door
hears from libzmq's monitor which descriptors are accepted, and ends a connection by resetting its socket, which libzmq
then finds broken and clears away.

A descriptor's number is given to another socket once it is free, its inode is not: a connection is ended only while its
descriptor is still that inode.

Source: libzmq `zmq_socket_monitor`, `zmq_msg_get` (ZMQ_SRCFD); behaviour at the limit of descriptors: pyzmq#1642;
`struct tcp_info` of Linux's linux/tcp.h.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

GREET_WITHIN_S = 10.0
"""A connection that has not said hello by then is ended; the client says it at once."""
MAX_UNKNOWN = 256
"""Connections that have not said hello yet; a handshake takes milliseconds."""
RESERVED_FILES = 128
"""Descriptors that the service itself needs: recordings, database, lanes, ZeroMQ."""
MAX_CONNECTIONS = 4096
MAX_ENDLESS, MAX_BEFORE_HELLO = 1 << 20, 1 << 16
"""Bytes that a connection may send without a message coming of them, and before it has said hello: of parts of two
bytes each, libzmq keeps thirty times as much."""
MEASURE_S = 0.05
"""Between two looks at how much has come: each is a system call for every connection."""
_TCP_INFO_BYTES, _TCP_INFO_RECEIVED = 136, 128
"""Length of `tcp_info` up to and with `tcpi_bytes_received`, and where that is."""
_HEARD = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_RESET = struct.pack("ii", 1, 0)  # l_onoff, l_linger: what is still queued is thrown away


class Peer(NamedTuple):
    """One accepted connection. inode : of its socket; from_ : address of the other machine."""

    descriptor: int
    inode: int
    from_: str
    since_s: float


class Door:
    """The connections of one bound socket; in the thread that owns the socket."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], server: zmq.Socket[bytes], log: Callable[..., None]
    ) -> None:  # fmt: skip
        """Watch `server`, which is not bound yet."""
        name = f"inproc://door-{id(server):x}"
        server.monitor(name, _HEARD)
        self._server = server
        self._log = log
        self.socket = context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.LINGER, 0)
        # Without a limit, for at one libzmq's own thread would wait for us, and with it every connection.
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(name)
        self._port = 0
        self._unknown: dict[int, Peer] = {}
        self._known: dict[int, Peer] = {}
        self._ended: list[Peer] = []
        self._spoke: set[int] = set()
        """Descriptors by which messages came since the last look."""
        self._marks: dict[int, int] = {}
        """Bytes that had come by each connection when it last was seen to have spoken, by its inode."""
        self._suspects: set[int] = set()
        """Inodes of those that had sent too much at the last look."""
        self._measured_s = 0.0
        self.endless = 0
        """Connections ended because of a message that did not come to an end."""
        self.limit = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES)
        self.cut_off = 0
        """Connections ended because they were too many or never said who they are."""

    def opened(self, address: str) -> None:
        """Hear the address that the socket was bound to."""
        self._port = int(address.rpartition(":")[2])

    def close(self) -> None:
        """Stop watching; before the socket is closed."""
        self._server.disable_monitor()
        self.socket.close(linger=0)

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._unknown) + len(self._known)

    # ------------------------------------------------------------------------------------------- who comes and goes

    def look(self) -> list[Peer]:
        """Take what libzmq told, end what may not stay, and return the greeted connections that have ended."""
        self._hear()
        for peer in [p for p in self._unknown.values() if not _is(p)]:
            del self._unknown[peer.descriptor]  # it failed in its handshake, of which libzmq says nothing
        self._make_room()
        self._end_endless()
        ended, self._ended = self._ended, []
        return ended

    def _hear(self) -> None:
        for _ in range(10_000):
            try:
                told: dict[str, Any] = dict(parse_monitor_message(self.socket.recv_multipart(zmq.NOBLOCK)))
            except zmq.Again:
                return
            descriptor = int(told["value"])
            if (known := self._known.pop(descriptor, None)) is not None:
                self._ended.append(known)
            self._unknown.pop(descriptor, None)
            if told["event"] == zmq.EVENT_ACCEPTED and (peer := self._accepted(descriptor)) is not None:
                self._unknown[descriptor] = peer

    def _accepted(self, descriptor: int) -> Peer | None:
        """Return the connection of a descriptor, None if it has ended meanwhile."""
        try:
            with socket.socket(fileno=os.dup(descriptor)) as ours:
                if ours.getsockname()[1] != self._port:
                    return None
                return Peer(descriptor, os.fstat(ours.fileno()).st_ino, str(ours.getpeername()[0]), time.monotonic())
        except OSError:  # it is closed, or is no socket any more
            return None

    def greeted(self, descriptor: int) -> Peer | None:
        """Hear that the connection of a descriptor has said who it is; return it, None if it has ended already."""
        self._hear()  # that it was accepted was told before its first message came
        peer = self._unknown.pop(descriptor, None)
        if peer is None:
            return self._known.get(descriptor)
        self._known[descriptor] = peer
        return peer

    def spoke(self, descriptor: int) -> None:
        """Hear that a message came by the connection of a descriptor."""
        self._spoke.add(descriptor)

    def left(self, peer: Peer) -> None:
        """Hear that nobody is at this connection any more; it may say hello again for a while."""
        if self._known.get(peer.descriptor) is peer:
            del self._known[peer.descriptor]
            self._unknown[peer.descriptor] = peer._replace(since_s=time.monotonic())

    # ------------------------------------------------------------------------------------------------ who must go

    def cut(self, peer: Peer) -> None:
        """End a connection at once: what waits to be sent on it is never sent."""
        for some in (self._known, self._unknown):
            if some.get(peer.descriptor) is peer:
                del some[peer.descriptor]
        _reset(peer)

    def cut_all(self) -> None:
        """End every connection."""
        for peer in (*self._known.values(), *self._unknown.values()):
            _reset(peer)
        self._known.clear()
        self._unknown.clear()

    def _make_room(self) -> None:
        before = self.cut_off
        now_s = time.monotonic()
        for peer in [p for p in self._unknown.values() if now_s - p.since_s > GREET_WITHIN_S]:
            self._cut_unknown(peer)
        too_many = max(len(self._unknown) - MAX_UNKNOWN, min(len(self) - self.limit, len(self._unknown)))
        if too_many > 0:
            # Of the machine that has the most of them, and of those the oldest: a stranger's flood is not to push out
            # the one handshake that is a colleague's.
            count = Counter(p.from_ for p in self._unknown.values())
            order = sorted(self._unknown.values(), key=lambda p: (-count[p.from_], p.since_s))
            for peer in order[:too_many]:
                self._cut_unknown(peer)
        doubled = self.cut_off.bit_length() > before.bit_length()
        if doubled:
            text = f"connections that never said who they are, or too many at once ({self.cut_off} so far)"
            self._log("connections_cut", level="warning", text=text)

    def _end_endless(self) -> None:
        """End connections that send and send, and no message comes of it."""
        now_s = time.monotonic()
        if now_s - self._measured_s < MEASURE_S:
            return
        self._measured_s = now_s
        before, marks, suspects = self.endless, self._marks, self._suspects
        spoke, self._spoke, self._marks, self._suspects = self._spoke, set(), {}, set()
        for peers, most in ((self._unknown, MAX_BEFORE_HELLO), (self._known, MAX_ENDLESS)):
            for peer in list(peers.values()):
                received = _received(peer)
                if received is None:
                    continue
                mark = received if peer.descriptor in spoke else marks.get(peer.inode, 0)
                self._marks[peer.inode] = mark
                if received - mark <= most:
                    continue
                if peer.inode not in suspects:  # what came as whole messages may not have been taken yet
                    self._suspects.add(peer.inode)
                    continue
                self.endless += 1
                _reset(peer)  # libzmq tells of its end, which makes it one that broke
        if self.endless.bit_length() > before.bit_length():
            text = f"a message of more than {MAX_ENDLESS} bytes in parts, or {MAX_BEFORE_HELLO} before any hello"
            self._log("endless_message", level="warning", text=f"{text} ({self.endless} so far)")

    def _cut_unknown(self, peer: Peer) -> None:
        self._unknown.pop(peer.descriptor, None)
        self.cut_off += 1
        _reset(peer)


def _is(peer: Peer) -> bool:
    """Tell whether the descriptor is still that connection's."""
    try:
        found = os.fstat(peer.descriptor)
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_ino == peer.inode


def _received(peer: Peer) -> int | None:
    """Return how many bytes have come by a connection; None if it has ended, or the system does not tell."""
    try:
        with socket.socket(fileno=os.dup(peer.descriptor)) as ours:
            if os.fstat(ours.fileno()).st_ino != peer.inode:
                return None
            told = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    return int.from_bytes(told[_TCP_INFO_RECEIVED:], sys.byteorder) if len(told) == _TCP_INFO_BYTES else None


def _reset(peer: Peer) -> None:
    """Reset a connection if it is still there: nothing that is queued goes out, and libzmq finds it broken."""
    try:
        with socket.socket(fileno=os.dup(peer.descriptor)) as ours:
            if os.fstat(ours.fileno()).st_ino == peer.inode:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                ours.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended, which is all that was wanted
