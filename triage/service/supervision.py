"""What the supervisor of services hears of the daemon: that it is ready, that every loop of it turns, that it ends.

systemd starts the daemon again when it has not heard for `WatchdogSec` that all is well. The daemon says so only while
every loop has progressed: its own, libzmq's, and those of the lanes, or while a lane whose loop stands is being ended
and started again.

Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import MutableMapping

import zmq

WATCHDOG_S = 30.0
"""How long a loop may stand where no supervisor has its own idea of it."""
READ_FACTOR = 1.6
"""A device's loop may stand longer: the reader of one foreign file may take 40 s."""
FEED_FACTOR = 0.2


class Supervisor:
    """The other end of $NOTIFY_SOCKET; where there is none, nothing is said. Nothing here ever raises."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Read what the supervisor wants, and take it out of the environment: it is not for our children."""
        given = os.environ if environment is None else environment
        path = given.pop("NOTIFY_SOCKET", "")
        wanted, whose = given.pop("WATCHDOG_USEC", ""), given.pop("WATCHDOG_PID", "")
        self.watchdog_s = WATCHDOG_S
        """How long a loop may stand."""
        if wanted.isdecimal() and int(wanted) > 0 and whose in ("", str(os.getpid())):
            self.watchdog_s = int(wanted) / 1e6
        self._socket: socket.socket | None = None
        self._fed_s = -self.watchdog_s
        self._is_ready = False
        if path.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self) -> None:
        """Say, once, that the service is up."""
        if not self._is_ready:
            self._is_ready = True
            self._say("READY=1")

    def feed(self) -> None:
        """Say that every loop has progressed; often enough, not at every turn."""
        now_s = time.monotonic()
        if now_s - self._fed_s >= FEED_FACTOR * self.watchdog_s and self._say("WATCHDOG=1"):
            self._fed_s = now_s

    def stopping(self) -> None:
        """Say that the service is about to end."""
        self._say("STOPPING=1")

    def close(self) -> None:
        """Say nothing more; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, text: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:  # it is busy or gone; unfed, it starts us again
            return False
        return True


class Pulse:
    """Proves that libzmq's own thread turns: a byte goes through it to ourselves, over and over."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._ends = [context.socket(zmq.PAIR) for _ in range(2)]
        for end in self._ends:
            end.setsockopt(zmq.LINGER, 0)
        name = f"ipc://@scanlane-{uuid.uuid4().hex}"
        self._ends[0].bind(name)
        self._ends[1].connect(name)
        self._came_s = time.monotonic()
        self._ends[1].send(b"")

    def silent_s(self) -> float:
        """Return for how long none has come through; called at every turn."""
        now_s = time.monotonic()
        while self._ends[0].poll(0):
            self._ends[0].recv()
            self._came_s = now_s
            self._ends[1].send(b"")
        return now_s - self._came_s

    def close(self) -> None:
        """Stop."""
        for end in self._ends:
            end.close(linger=0)
