"""`scanlane console`: the page served to this machine alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import uvicorn

from scanner_io.errors import ConfigError, StorageError
from scanner_io.security import Identity
from scanner_io.storage import make_folder

from .station import Station
from .web import Lock, new_app


def default_state_dir() -> Path:
    """Return where this user's consoles keep their journals."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "scanlane" / "console"


class _Server(uvicorn.Server):
    """Ends by our own signal handlers: uvicorn's raise the signal once more, and nothing after it would run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn around serving."""
        yield


def new_server(station: Station, lock: Lock) -> uvicorn.Server:
    """Return what serves a station's page to whoever the lock lets in."""
    config = uvicorn.Config(
        new_app(station, lock), log_level="warning", access_log=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=3, server_header=False, date_header=False,
    )  # fmt: skip
    return _Server(config)


async def _serve(server: uvicorn.Server, station: Station, listening: socket.socket) -> None:
    def stop() -> None:
        station.events.close()  # the pages' streams would keep it open
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listening])


def run_console(
    addresses: tuple[str, ...], analyst: str, state_dir: Path, *, port: int, identities: tuple[Identity, ...] = (),
    say: Callable[[str], None], **options: Any,
) -> None:  # fmt: skip
    """Serve the page until SIGINT or SIGTERM.

    say : is told each address that opens it, which holds a secret; options : of `Station`

    Raises ConfigError if the port is taken, or an address or a key cannot be used.
    """
    try:
        make_folder(state_dir)
        state_dir.chmod(0o700)
    except OSError as error:
        raise StorageError(f"{state_dir}: cannot be the console's folder ({error}); choose one by --state") from error
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError([f"--port {port}: cannot be bound ({error}); choose another, or 0 for any"]) from error
        listening.listen(128)  # whoever is told the address may come at once
        lock = Lock(listening.getsockname()[1])
        cv2.setNumThreads(1)  # energies and tiles are worked on side by side already
        station = Station(addresses, analyst, state_dir, identities=identities, **options)
        try:
            server = new_server(station, lock)
            say(lock.new_address())
            if sys.stdin.isatty():
                threading.Thread(target=_new_addresses, args=(lock, say), daemon=True).start()
            asyncio.run(_serve(server, station, listening))
        finally:
            station.close()


def _new_addresses(lock: Lock, say: Callable[[str], None]) -> None:
    """Give a new address each time Enter is pressed: the last one works once."""
    while sys.stdin.readline():
        say(lock.new_address())
