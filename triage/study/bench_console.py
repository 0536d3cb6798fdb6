"""The console benchmark: from a click to the picture, frames while it moves, memory over many scans, a long queue.

A service with large recordings, the console in a process of its own, and the system's Chromium before it. Frames are
counted beside those of a bare quad with one texture, on a canvas of the same size and in the same run: what a machine
without a graphics card can paint at all is a property of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec
import numpy as np

from scanner_io.errors import DataError
from triage.study.measure import machine, ratio, versions

FLAGS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--enable-precise-memory-info")
_WAIT_MS = 60_000
_SECONDS = 2.0
"""Counted per contestant and round."""
_REPEATS = 3

_LISTEN = """() => {
  window.paints = [];
  let since = 0;
  document.addEventListener('click', () => { since = performance.now(); }, true);
  document.addEventListener('scan-first-paint', (e) => {
    window.paints.push({scan_id: e.detail.scan_id, click_ms: performance.now() - since, view_ms: e.detail.ms});
  });
}"""
_AHEAD = """async (id) => {
  const headers = {'X-Scanlane': '1'};
  await fetch('/api/open', {method: 'POST', headers, body: JSON.stringify({scan_id: id, ahead: true})});
  while (!(await fetch(`/api/scan/${id}`)).ok) await new Promise((next) => setTimeout(next, 20));
}"""
_SETTINGS = """() => fetch('/api/settings',
  {method: 'POST', headers: {'X-Scanlane': '1'}, body: JSON.stringify({ahead: false})}).then((r) => r.status)"""
_BRING = """async (id) => {
  const {state} = await import('/static/shell/store.js');
  const list = document.querySelector('.lists');
  const at = state.shownRows.findIndex((row) => row.scan_id === id);
  list.scrollTop = Math.max(0, at * list.querySelector('.row').offsetHeight - list.clientHeight / 2);
}"""
_WAITING = """async () => {
  const {counts} = (await import('/static/shell/store.js')).state;
  return (counts.pending ?? 0) + (counts.leased ?? 0) + (counts.held ?? 0);
}"""
_REACHED = "Number(document.activeElement.parentElement.getAttribute('aria-posinset'))"
_QUEUE = """async ({updates, seconds}) => {
  const {takeQueue} = await import('/static/shell/queue.js');
  const {state} = await import('/static/shell/store.js');
  const list = document.querySelector('.lists');
  const told = state.rows.length;
  const in_page = document.querySelectorAll('.row-button').length;
  const costs = [];
  for (let n = 0; n < updates; n += 1) {
    const rows = [...state.rows.slice(1), state.rows[0]].map((row) => ({...row}));
    const since = performance.now();
    takeQueue({rows, counts: state.counts});
    await null; await null;
    void list.offsetHeight;
    costs.push(performance.now() - since);
  }
  const frames = [];
  await new Promise((done) => {
    let since = 0; let last = 0;
    const step = (now) => {
      if (last) frames.push(now - last); else since = now;
      last = now;
      if (now - since >= seconds * 1000) { done(); return; }
      list.scrollTop = (list.scrollHeight - list.clientHeight) * ((now - since) / seconds / 1000);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  return {in_page, told, costs, frames};
}"""
_FRAMES = """async ({what, seconds}) => {
  const view = document.querySelector('scan-view#main');
  const frames = (each) => new Promise((done) => {
    let n = 0; let since = 0;
    const step = (now) => {
      if (!since) since = now;
      if (now - since >= seconds * 1000) { done(n / ((now - since) / 1000)); return; }
      each(n); n += 1;
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  if (what !== 'bare') {
    view.action('fit'); view.port.zoomTo(1); view.redraw();
    const moves = {pan: (n) => view.action(n % 40 < 20 ? 'pan-left' : 'pan-right'), zoom: (n) => view.action(n % 20 < 10 ? 'zoom-in' : 'zoom-out'),
      window: (n) => view.setWindow(0, 30000 + 100 * (n % 200))};
    return frames(moves[what]);
  }
  const shown = view.renderRoot.querySelector('canvas.gl');
  const box = shown.getBoundingClientRect();
  const canvas = document.createElement('canvas');
  canvas.width = shown.width; canvas.height = shown.height;
  Object.assign(canvas.style, {position: 'fixed', left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px`, zIndex: 99});
  document.body.append(canvas);
  const gl = canvas.getContext('webgl2', {alpha: false, antialias: false, depth: false});
  const shader = (kind, text) => { const s = gl.createShader(kind); gl.shaderSource(s, text); gl.compileShader(s); return s; };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `#version 300 es
    uniform float x; out vec2 at; void main() { at = vec2(gl_VertexID & 1, gl_VertexID >> 1); gl_Position = vec4(2.0 * at - 1.0, 0.0, 1.0); at.x += x; }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `#version 300 es
    precision highp float; uniform sampler2D t; in vec2 at; out vec4 c; void main() { c = texture(t, at); }`));
  gl.linkProgram(program); gl.useProgram(program);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1024, 1024, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4 * 1024 * 1024).map((_, n) => n));
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST); gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  const x = gl.getUniformLocation(program, 'x');
  const rate = await frames((n) => { gl.uniform1f(x, n / 300); gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4); });
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  canvas.remove();
  return rate;
}"""  # noqa: E501 - shaders are read by the line


def bench_console(
    rounds: int = 10, columns: int = 5000, channels: int = 2000, scans: int = 200, queue: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the benchmark and return a JSON-ready report.

    columns, channels : of every recording, of two energies; queue : scans that wait at the end
    scans : opened one after the other, by clicks on the queue, for the memory

    first_paint_ms : from the click to the frame after the one painted; `cold`: the recording is still at the lane;
        `ahead`: the console had fetched and read it, as it does with the next one of the queue
    frames_per_s : while panning, zooming and dragging the window; `bare` is the quad
    waiting_ms : from the click to the frame after the one painted, of the scans opened for the memory
    queue : of so many that wait, the place of the last one that the key `End` comes to, and how long that took; how
        many of them the page knows then and how many rows it has made; cost of taking a changed queue of all these, and
        frames while it is scrolled from end to end
    progress : called with how many steps of how many are done: a recording, a pair of paints, a measuring, a scan
    cpu_ms_per_frame : of all processes of the browser, which a load of the machine hardly changes
    memory_mb : of page (JavaScript), browser (all processes, shared pages by share) and console, after each fifth

    Raises DataError without Chromium or Playwright, or if no picture comes.
    """
    if rounds < 1:
        raise DataError(f"bench: rounds is {rounds}; give at least 1")
    chromium = next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )
    if chromium is None:
        raise DataError("bench: no Chromium on this machine; apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise DataError("bench: Playwright is missing; it is in the extra `test`") from error
    load_before = os.getloadavg()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="scanlane-bench-")))
        step = _Steps(steps(rounds, scans), progress)
        rows = [step(_recorded(folder, number, columns, channels)) for number in range(2 * rounds)]
        more: SimpleQueue[Any] = SimpleQueue()
        address = ends.enter_context(_service(folder, rows, more))
        console, url = ends.enter_context(_console(folder, address))
        driver = ends.enter_context(sync_playwright())
        flags = [*FLAGS, *(("--no-sandbox",) if os.geteuid() == 0 else ())]
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        ends.callback(browser.close)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(_WAIT_MS)
        page.goto(url)
        page.wait_for_selector(".row-button")
        page.evaluate(_SETTINGS)
        page.reload()
        page.wait_for_selector(".row-button")
        page.evaluate(_LISTEN)
        ids = [row.scan_id for row in rows]
        paints: dict[str, list[dict[str, Any]]] = {"cold": [], "ahead": []}
        for number in range(rounds):
            cold, ahead = ids[number], ids[rounds + number]
            paints["cold"].append(_clicked(page, cold))
            page.evaluate(_AHEAD, ahead)
            paints["ahead"].append(_clicked(page, ahead))
            step()
        frames: dict[str, list[float]] = {"bare": [], "pan": [], "zoom": [], "window": []}
        busy: dict[str, list[float]] = {what: [] for what in frames}
        for _ in range(_REPEATS):
            for what, rates in frames.items():
                before_s = _browser_cpu_s(console.pid)
                rates.append(page.evaluate(_FRAMES, {"what": what, "seconds": _SECONDS}))
                busy[what].append(1000 * (_browser_cpu_s(console.pid) - before_s) / max(1.0, rates[-1] * _SECONDS))
            step()
        memory, waits = {}, []
        for number in range(scans):
            waits.append(step(_clicked(page, ids[number % len(ids)])["click_ms"]))
            if (number + 1) % max(1, scans // 5) == 0 or number + 1 == scans:
                memory[f"after_{number + 1}"] = _memory(page, console.pid)
        long = _long_queue(page, rows[0], more, queue - len(rows))
        version = browser.version
    return {
        "rounds": rounds,
        "columns": columns,
        "channels": channels,
        "first_paint_ms": {name: _percentiles([p["click_ms"] for p in found]) for name, found in paints.items()},
        "first_paint_in_view_ms": {name: _percentiles([p["view_ms"] for p in found]) for name, found in paints.items()},
        "frames_per_s": {name: round(statistics.median(rates), 1) for name, rates in frames.items()},
        "cpu_ms_per_frame": {name: round(statistics.median(costs), 1) for name, costs in busy.items()},
        "pan_over_bare": ratio(frames["pan"], frames["bare"]),
        "zoom_over_bare": ratio(frames["zoom"], frames["bare"]),
        "waiting_ms": _percentiles(waits),
        "memory_mb": memory,
        "queue": {"waiting": max(queue, len(rows)), **long},
        "browser": f"Chromium {version}, headless, software graphics",
        "machine": machine(load_before),
        "versions": versions(),
    }


def steps(rounds: int, scans: int) -> int:
    """Return how many steps `progress` of `bench_console` is called for."""
    return 2 * rounds + rounds + _REPEATS + scans


class _Steps:
    """Counts what is done and passes it on; called with a value it returns it."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, value: Any = None) -> Any:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
        return value


def _long_queue(page: Any, like: Any, more: SimpleQueue[Any], count: int) -> dict[str, Any]:
    """Have more scans wait, and measure what the page does with them."""
    for number in range(max(0, count)):
        scan_id = f"{like.scan_id[:-8]}{number + 0x1000:08x}"
        result = msgspec.structs.replace(like.result, scan_id=scan_id)
        more.put(msgspec.structs.replace(like, scan_id=scan_id, result=result))
    deadline = time.monotonic() + _WAIT_MS / 1000
    while not more.empty() and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.mouse.move(700, 300)  # rows stay as they are while a hand or the keyboard is on them
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(2000)  # the console asks twice a second
    since_s = time.monotonic()
    page.locator(".row-button").first.focus()
    reached, most = 0, page.evaluate(_WAITING)
    while reached < most and time.monotonic() < since_s + _WAIT_MS / 1000:
        page.keyboard.press("End")
        page.wait_for_timeout(100)
        reached = page.evaluate(_REACHED)
    took_s = time.monotonic() - since_s
    page.evaluate("document.activeElement.blur()")
    told = page.evaluate(_QUEUE, {"updates": 20, "seconds": _SECONDS})
    frames = told["frames"]
    return {
        "reached": reached, "reached_s": round(took_s, 1), "known": told["told"], "rows_in_page": told["in_page"],
        "update_ms": _percentiles(told["costs"]),
        "scroll_frames_per_s": round(1000 / statistics.mean(frames), 1), "longest_frame_ms": round(max(frames), 1),
    }  # fmt: skip


def _percentiles(values: list[float]) -> dict[str, float]:
    found = np.percentile(values, [50, 95, 100])
    return {name: round(float(v), 1) for name, v in zip(("p50", "p95", "max"), found, strict=True)}


def _clicked(page: Any, scan_id: str) -> dict[str, Any]:
    """Open a scan by a click on its row and return when it was painted."""
    before = page.evaluate("window.paints.length")
    page.evaluate(_BRING, scan_id)
    page.locator(f".row-button[data-scan='{scan_id}']").click()
    deadline = time.monotonic() + _WAIT_MS / 1000
    while page.evaluate("window.paints.length") == before:
        if time.monotonic() > deadline:
            raise DataError(f"bench: scan {scan_id} was not painted within {_WAIT_MS / 1000:.0f} s of the click")
        page.wait_for_timeout(10)
    found: dict[str, Any] = page.evaluate("window.paints.at(-1)")
    if found["scan_id"] != scan_id:
        raise DataError(f"bench: scan {found['scan_id']} was painted after a click on {scan_id}")
    return found


def _memory(page: Any, console_pid: int) -> dict[str, float]:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = page.evaluate("performance.memory.usedJSHeapSize")
    session.detach()
    browser = sum(_pss_kb(pid) for pid in _browser(console_pid))
    return {
        "page": round(used / 1e6, 1),
        "browser": round(browser / 1024, 1),
        "console": round(sum(_pss_kb(pid) for pid in _family(console_pid)) / 1024, 1),
    }


def _browser_cpu_s(console_pid: int) -> float:
    """Return the processor time that the browser's processes have taken."""
    ticks = 0
    for pid in _browser(console_pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _browser(console_pid: int) -> list[int]:
    """Return the browser's processes: those below this one that run its program, and not Playwright's own driver."""
    found = []
    for pid in set(_descendants(os.getpid())) - _family(console_pid):
        try:
            program = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        except OSError:  # it has ended meanwhile
            continue
        if b"chrom" in program:
            found.append(pid)
    return found


def _descendants(of: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, left = [], [of]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def _family(pid: int) -> set[int]:
    return {pid, *_descendants(pid)}


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


# --------------------------------------------------------------------------------------------------------------
# What is measured


def _recorded(folder: Path, number: int, columns: int, channels: int) -> Any:
    """Write a recording of the phantom and return its row in the outbox."""
    import hashlib

    from scanner_io import recording
    from scanner_io.model import DetectorState, DeviceInfo, Radiograph, Scan, TriageResult
    from triage.service.outbox import ScanRow
    from triage.study.phantom import phantom

    begun_ns = 1_767_600_000_000_000_000 + number * 60_000_000_000
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(begun_ns / 1e9))
    scan_id = f"bench-{stamp}.000000Z-{number:08x}"
    counts, _ = _cached_phantom(phantom, channels, columns)
    detector = DetectorState(
        energies=("low", "high"), channels=channels, dark=(np.full(channels, 100, np.float32),) * 2,
        air=(np.full(channels, 40_000, np.float32), np.full(channels, 60_000, np.float32)),
        bad_channels=np.zeros(channels, np.bool_), column_pitch_mm=4.0, channel_pitch_mm=2.5,
    )  # fmt: skip
    times = begun_ns + np.arange(columns, dtype=np.int64) * 2_000_000
    scan = Scan(
        scan_id=scan_id, lane="bench", start_utc_ns=begun_ns, end_utc_ns=int(times[-1]), expected=("radiograph",),
        radiograph=Radiograph(detector=detector, counts=counts, column_utc_ns=times), portal=None, declaration=None,
        devices=(DeviceInfo(vendor="bench", model="phantom", kinds=("radiograph",), simulated=True),), quality=(),
    )  # fmt: skip
    result = TriageResult(
        scan_id=scan_id, outcome="REVIEW", reasons=("benchmark",), load="unknown", container=None, findings=(),
        quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="bench",
        code_version="bench",
    )  # fmt: skip
    path = folder / f"{scan_id}.scan.h5"
    recording.write(path, scan, config={}, result=result)
    data = path.read_bytes()
    return ScanRow(
        scan_id=scan_id, lane="bench", path=str(path), sha256=hashlib.sha256(data).hexdigest(), size=len(data),
        start_utc_ns=begun_ns, simulated=True, result=result,
    )  # fmt: skip


_phantoms: dict[tuple[int, int], Any] = {}


def _cached_phantom(make: Callable[..., Any], channels: int, columns: int) -> Any:
    if (channels, columns) not in _phantoms:
        _phantoms.clear()
        _phantoms[channels, columns] = make(channels, columns)
    return _phantoms[channels, columns]


@contextmanager
def _service(folder: Path, rows: list[Any], more: SimpleQueue[Any]) -> Iterator[str]:
    """Serve recordings as the daemon's loop does, in a thread; give its address. more : recordings that come later"""
    import zmq

    from scanner_io.config import Dispatch as DispatchConfig
    from triage.service.dispatch import Dispatch
    from triage.service.outbox import Outbox

    told: list[str] = []
    up, ending = threading.Event(), threading.Event()

    def serve() -> None:
        outbox = Outbox(folder / "outbox.sqlite")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        config = DispatchConfig(bind="tcp://127.0.0.1:0", lease_s=60.0, max_attempts=1000)
        dispatch = Dispatch(context, config, outbox, lambda *_, **__: None)
        for row in rows:
            outbox.add(row)
        told.append(dispatch.address)
        up.set()
        while not ending.is_set():
            while not more.empty():
                outbox.add(more.get())
            if dispatch.socket.poll(20):
                dispatch.serve()
            dispatch.tick()
        dispatch.close()
        context.term()
        outbox.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if not up.wait(30):
            raise DataError("bench: the service did not start within 30 s")
        yield told[0]
    finally:
        ending.set()
        thread.join()


@contextmanager
def _console(folder: Path, address: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `scanlane console`; give its process and the address that opens it."""
    command = [sys.executable, "-m", "triage.cli", "console", "--connect", address, "--port", "0", "--json"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--analyst", "bench", "--state", str(folder / "console")], stdout=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise DataError(f"bench: the console ended at once with {process.wait()}")
        yield process, json.loads(line)["url"]
    finally:
        process.terminate()
        process.communicate(timeout=30)  # and close its pipe
