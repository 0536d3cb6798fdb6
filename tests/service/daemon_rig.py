"""The real daemon in a process of its own, and analysts in theirs."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

CONFIG = """
state_dir = "state"
[storage]
min_free_mb = 16
[dispatch]
bind = "tcp://127.0.0.1:{port}"
lease_s = {lease_s}
heartbeat_s = 0.5
"""


class Process:
    """A child that prints JSON lines."""

    def __init__(self, *command):
        self.events = []
        self._new = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
            cwd=ROOT,
        )  # fmt: skip
        self._errors = []
        self._threads = [
            threading.Thread(target=self._read),
            threading.Thread(target=lambda: self._errors.extend(self.process.stderr)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            self._new.put(event)
        self._new.put(None)

    def wait_for(self, name, timeout_s=60.0, **fields):
        """Return the next event of that name and fields."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self._new.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {name} {fields} within {timeout_s} s; {self.events[-5:]}") from None
            if event is None:
                raise AssertionError(f"ended before {name}: {''.join(self._errors)[-2000:]}")
            if event.get("event") == name and all(event.get(k) == v for k, v in fields.items()):
                return event

    def named(self, name):
        return [e for e in self.events if e.get("event") == name]

    def last_words(self):
        """Return what it last said, for a test that fails."""
        return "".join(self._errors)[-3000:] + str(self.events[-5:])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self):
        """End it as an operator does; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self):
        code = self.process.wait(timeout=60)
        for thread in self._threads:
            thread.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.process.stdout.closed:
            self.stop()


def write_config(folder, lanes, *, port=0, lease_s=5.0):
    path = folder / "lane.toml"
    path.write_text(CONFIG.format(port=port, lease_s=lease_s) + lanes)
    return path


def daemon(config, *options):
    return Process("-m", "triage.cli", "run", str(config), "--json", *options)


def analyst(address, name, *, decides):
    """An analyst in a process of its own: takes offers, prints them, and decides them or just holds them."""
    code = f"""
import json, sys
from scanner_io.client import Workstation
with Workstation({address!r}, {name!r}) as desk:
    print(json.dumps(dict(event="ready")), flush=True)
    while True:
        offer = desk.next_offer(0.5)
        if offer is None:
            continue
        data = desk.fetch(offer)
        print(json.dumps(dict(event="offer", scan=offer.scan_id, bytes=len(data))), flush=True)
        if {decides!r}:
            applied = desk.decide(offer, "clear").applied
            print(json.dumps(dict(event="decided", scan=offer.scan_id, applied=applied)), flush=True)
"""
    return Process("-c", code)


FILE_DROP = """
[[lane]]
name = "north"
join_window_s = 3
join_wait_s = {wait_s}
[[lane.device]]
driver = "file_drop"
path = "{folder}"
stable_s = 0.1
poll_s = 0.05
"""


def lane_with_drop(folder, wait_s=1.0):
    drop = folder / "drop"
    drop.mkdir()
    return drop, FILE_DROP.format(folder=drop, wait_s=wait_s)


def put_image(folder, name, seed):
    """Drop a picture of a container-like dark box as a scanner's export does: under another name first."""
    rng = np.random.default_rng(seed)
    image = np.full((200, 480), 250, np.uint8)
    image[40:160, 60:420] = 120
    image[90:150, 100:380] = 12
    image = np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)
    part = folder / f".{name}.tmp"
    part.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    part.rename(folder / name)
    return folder / name
