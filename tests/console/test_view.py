"""The viewer: known values read back from the screen, by every way of drawing; nothing of another scan, ever."""

import base64
import time
import zlib

import msgspec
import numpy as np
import pytest

from scanner_io import recording
from tests.console.site import Console, Site, drawn_scan, row_of
from triage.console import images

COLUMNS, ROWS = 1500, 700
LONG = 200_000
HOST = """
async ({meta, prefer, w, h}) => {
  await import('/static/view/scan-view.js');
  document.querySelector('#bench')?.remove();
  const host = document.createElement('div');
  host.id = 'bench';
  const style = {position: 'fixed', inset: '0', zIndex: 99, width: `${w}px`, height: `${h}px`, display: 'flex'};
  Object.assign(host.style, style);
  const view = document.createElement('scan-view');
  Object.assign(view, {prefer, overlays: false, compact: true, scan: meta});
  view.style.flex = '1';
  window.heard = [];
  const names = ['scan-first-paint', 'tile-refused', 'renderer-change', 'region-drawn', 'measured', 'scan-cursor'];
  for (const name of names)
    view.addEventListener(name, (e) => window.heard.push([name, e.detail]));
  host.append(view);
  document.body.append(host);
  window.view = view;
}
"""
PIXELS = """
async () => {
  const image = window.view.pixels();
  const url = await new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(new Blob([image.data]));
  });
  return [image.width, image.height, url.slice(url.indexOf(',') + 1)];
}
"""


def known_scan(number, columns=COLUMNS, rows=ROWS, seed=3):
    """Return a scan of noise whose low energy is the darker, with a dark wire one column wide, and its result."""
    rng = np.random.default_rng(seed)
    scan, result = drawn_scan(number, columns=columns, channels=rows)
    high = rng.integers(300, 8000, (columns, rows)).astype(np.uint16)
    high[columns // 2] = 150
    low = (100 + (high - 100.0) ** 1.08 / 8000**0.08).astype(np.uint16)
    radiograph = msgspec.structs.replace(scan.radiograph, counts=(low, high))
    return msgspec.structs.replace(scan, radiograph=radiograph), result


@pytest.fixture(scope="module")
def shown(browser, tmp_path_factory):
    """A console with three opened scans: (page's context, metas, pyramids of both energies by scan id)."""
    folder = tmp_path_factory.mktemp("view")
    pyramids = {}
    scans = [known_scan(0), known_scan(1, seed=4), known_scan(2, columns=LONG, rows=48)]
    for scan, result in scans:
        recording.write(folder / f"{scan.scan_id}.scan.h5", scan, config={}, result=result)
        pyramids[scan.scan_id] = tuple(images.Pyramid(scan.radiograph, energy) for energy in (0, 1))
    rows = [row_of(folder / f"{scan.scan_id}.scan.h5") for scan, _ in scans]
    site = Site(folder, rows, lease_s=120)
    with Console([site.address], folder / "console") as console:
        context = browser.new_context(viewport={"width": 1366, "height": 768})
        page = context.new_page()
        page.goto(console.url)
        page.wait_for_selector(".row-button")
        metas = [opened(page, scan.scan_id) for scan, _ in scans]
        page.close()
        yield context, console.url.partition("?")[0], metas, pyramids
        context.close()
    site.stop()


def opened(page, scan_id):
    """Open a scan and return its meta."""
    ask = """async (id) => {
      const post = {method: 'POST', headers: {'X-Scanlane': '1'}, body: JSON.stringify({scan_id: id, ahead: true})};
      await fetch('/api/open', post);
      for (;;) {
        const answer = await fetch(`/api/scan/${id}`);
        if (answer.ok) return answer.json();
        await new Promise((next) => setTimeout(next, 50));
      }
    }"""
    return page.evaluate(ask, scan_id)


@pytest.fixture
def page(shown):
    context, url, *_ = shown
    opened_page = context.new_page()
    opened_page.set_default_timeout(10_000)
    opened_page.goto(url)
    yield opened_page
    opened_page.close()


def until(page, condition, timeout_s=10.0):
    """Wait until an expression is true in the page, whose policy forbids what Playwright would wait with."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"{condition} did not become true; {page.evaluate('window.heard')}"
        page.wait_for_timeout(15)


def show(page, meta, prefer="", w=700, h=380):
    page.evaluate(HOST, {"meta": meta, "prefer": prefer, "w": w, "h": h})
    until(page, "window.heard.some(([name]) => name === 'scan-first-paint') && window.view.drawn.complete")


def settled(page):
    """Wait until all that is to be seen is painted."""
    until(page, "((v) => !v.pending && !v.moving && !v.askTimer && v.drawn.complete && !v.store.running.size)(view)")


def pixels(page):
    """Return (height, width, 3) uint8, what is painted."""
    width, height, data = page.evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def heard(page, name):
    return [detail for kind, detail in page.evaluate("window.heard") if kind == name]


def expected(pyramid, x, y, w, h, look):
    """Return (h, w, 3) uint8 of level 0 as the server would draw it."""
    tile = np.ascontiguousarray(pyramid.values(x, x + w, y, y + h).T)
    return images.palettes()[look.palette][images.rendered(tile, look, images.WHITE)]


LOOKS = {
    "plain": images.Look(low=0, high=images.WHITE),
    "window, inverted, cividis": images.Look(low=12_000, high=31_000, invert=True, palette="cividis"),
    "log": images.Look(low=20_000, high=60_000, log=True),
}


@pytest.mark.parametrize("prefer", ["", "canvas", "png"])
def test_known_values_are_read_back_from_the_screen(shown, page, prefer):
    _, _, (meta, *_), pyramids = shown
    show(page, meta, prefer)
    assert page.evaluate("window.view.renderer") == (prefer or "webgl2")
    page.evaluate("window.view.action('one-to-one'), window.view.port.pan(1e6, 1e6), window.view.redraw()")
    height, width = page.evaluate("[window.view.bounds.h, window.view.bounds.w]")
    for name, look in LOOKS.items():
        page.evaluate(
            "([low, high, palette, held]) => { const v = window.view; v.palette = palette; v.setWindow(low, high);"
            " for (const name of ['invert', 'log']) v.action(name, held[name] ? 'down' : 'up'); }",
            [look.low, look.high, look.palette, {"invert": look.invert, "log": look.log}],
        )
        for x in (0, 600):  # the second crosses the edge of a tile
            page.evaluate(
                "x => { const v = window.view; v.port.centre(x + v.port.w / 2, v.port.h / 2, 1); v.redraw(); }", x
            )
            settled(page)
            seen = pixels(page)
            wanted = expected(pyramids[meta["scan_id"]][1], x, 0, width, height, look)
            assert (seen == wanted).all(), f"{name} at {x}: {(seen != wanted).mean():.4f} of the pixels differ"


def test_both_ways_of_drawing_give_the_same_picture_at_every_zoom(shown, page):
    _, _, (meta, *_), _ = shown
    drawn = {}
    for prefer in ("", "canvas"):
        show(page, meta, prefer, w=500, h=300)
        found = []
        for script in (
            "v.action('fit')", "v.port.centre(700, 300, 0.37), v.action('reduce')", "v.port.centre(760, 300, 3)",
            "v.action('edge', 'down')", "v.action('edge', 'up'), v.action('material')", "v.action('side-by-side')",
        ):  # fmt: skip
            page.evaluate(f"const v = window.view; {script}; v.redraw()")
            settled(page)
            found.append(pixels(page))
        drawn[prefer] = found
    for n, (graphic, soft) in enumerate(zip(drawn[""], drawn["canvas"], strict=True)):
        assert (graphic == soft).all(axis=2).mean() > 0.999, n


def test_a_wire_of_one_column_is_seen_when_all_is_zoomed_out(shown, page):
    _, _, (meta, *_), _ = shown
    show(page, meta, w=420, h=300)
    page.evaluate("window.view.action('reduce')")
    settled(page)
    row = pixels(page)[100].max(axis=1).astype(int)
    at = len(row) // 2
    assert row[at - 2 : at + 3].min() < 5
    assert "darkest" in page.inner_text("#bench .shown")


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("x-content-sha256", "ab" * 32, "recording with hash"), ("x-scan-id", "another", "of scan another"),
        ("x-tile", "high/0/0/0/mean", "it is tile"), (None, None, "CRC-32"),
    ],
)  # fmt: skip
def test_a_tile_that_is_not_what_was_asked_for_is_never_painted(shown, page, header, value, said):
    _, _, (meta, *_), _ = shown

    def falsified(route):
        answer = route.fetch()
        body = answer.body()
        headers = {**answer.headers, header: value} if header else answer.headers
        route.fulfill(status=200, headers=headers, body=body if header else bytes([body[0] ^ 1]) + body[1:])

    page.route("**/tile/**", falsified)
    page.evaluate(HOST, {"meta": meta, "prefer": "", "w": 600, "h": 300})
    until(page, "window.heard.some(([name]) => name === 'tile-refused')")
    page.wait_for_timeout(100)
    assert said in heard(page, "tile-refused")[0]["reason"]
    assert not heard(page, "scan-first-paint")
    assert (pixels(page) == 22).all()
    assert page.get_by_text("refused and is not shown").is_visible()


def test_a_lost_graphics_context_costs_no_pixel(shown, page):
    _, _, (meta, *_), _ = shown
    show(page, meta)
    settled(page)
    before = pixels(page)
    page.evaluate("window.lose = window.view.graphic.gl.getExtension('WEBGL_lose_context'); window.lose.loseContext()")
    until(page, "window.view.renderer === 'canvas'")
    assert (pixels(page) == before).all(axis=2).mean() > 0.999
    page.evaluate("window.lose.restoreContext()")
    until(page, "window.view.renderer === 'webgl2' && window.view.drawn.complete")
    settled(page)
    assert (pixels(page) == before).all()
    assert [d["renderer"] for d in heard(page, "renderer-change")] == ["webgl2", "canvas", "webgl2"]


def test_without_webgl_the_server_draws(shown, page):
    _, url, (meta, *_), _ = shown
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext ="
        " function (kind, ...more) { return kind === 'webgl2' ? null : get.call(this, kind, ...more); }"
    )
    page.goto(url)
    show(page, meta)
    settled(page)
    assert page.evaluate("window.view.renderer") == "png"
    assert page.evaluate("window.view.pixel(1200, 650)") is None
    page.mouse.move(450, 250)
    until(page, "window.view.reading?.exact")
    assert "drawn by the console's program" in page.inner_text("#bench .shown")
    assert len(np.unique(pixels(page))) > 50


def test_the_screen_is_cleared_with_the_scan_and_late_tiles_are_dropped(shown, page):
    _, _, (first, second, _), _ = shown
    show(page, first)
    page.route("**/tile/**", lambda route: (time.sleep(0.3), route.continue_())[1])
    state = page.evaluate(
        "meta => { const v = window.view; v.scan = meta; const all = [...v.renderRoot.querySelectorAll('canvas')];"
        " return [all.every((c) => c.hidden), v.store.entries.size, v.low, v.high, v.mode]; }",
        second,
    )
    assert state == [True, 0, 0, images.WHITE, "grey"]
    page.evaluate("metas => { window.view.scan = metas[0]; window.view.scan = metas[1]; }", [first, second])
    page.unroute_all(behavior="wait")
    until(page, "window.view.drawn?.complete")
    held = page.evaluate("[...window.view.store.entries.values()].length && window.view.store.scan.scan_id")
    assert held == second["scan_id"]


def test_two_hundred_thousand_columns_are_shown_to_the_last(shown, page):
    _, _, (*_, meta), pyramids = shown
    assert meta["columns"] == LONG
    show(page, meta)
    page.evaluate("window.view.port.centre(1e9, 0, 1), window.view.redraw()")
    settled(page)
    seen = pixels(page)
    height, width = seen.shape[:2]
    top = (height - 48) // 2
    wanted = expected(pyramids[meta["scan_id"]][1], LONG - width, 0, width, 48, LOOKS["plain"])
    assert (seen[top : top + 48] == wanted).all()


def test_keys_act_while_held_and_every_scan_opens_plain(shown, page):
    _, _, metas, _ = shown
    page.wait_for_selector(".row-button")
    page.locator(f".row-button[data-scan='{metas[0]['scan_id']}']").click()
    page.wait_for_selector("scan-view#main canvas.gl:not([hidden])")
    page.evaluate("window.view = document.querySelector('scan-view#main'); window.view.overlays = false")
    until(page, "window.view.drawn?.complete")
    settled(page)
    plain = pixels(page)
    page.keyboard.down("i")
    page.wait_for_timeout(50)
    inverted = pixels(page)
    page.keyboard.up("i")
    page.wait_for_timeout(50)
    inside = (slice(100, 200), slice(100, 200))
    assert (inverted[inside] == 255 - plain[inside]).all()
    assert (pixels(page) == plain).all()
    page.keyboard.press("2")
    field = page.get_by_label("value shown black")
    assert int(field.input_value()) == metas[0]["presets"][1]["low"]
    field.fill("1000")
    field.press("Enter")
    assert page.evaluate("window.view.low") == 1000
    page.evaluate("meta => { window.view.scan = meta; }", metas[1])
    assert page.evaluate("[window.view.low, window.view.high, window.view.palette]") == [0, images.WHITE, "grey"]


def test_values_under_the_cursor_regions_and_measures_are_of_the_recording(shown, page):
    _, _, (meta, *_), pyramids = shown
    show(page, meta)
    page.evaluate("window.view.port.centre(400, 300, 2), window.view.redraw()")
    settled(page)
    box = page.locator("#bench .stage").bounding_box()
    left, top = page.evaluate("[window.view.port.left, window.view.port.top]")

    def at(x, y):
        return box["x"] + (x - left) * 2 + 1, box["y"] + (y - top) * 2 + 1

    page.mouse.move(*at(411, 307))
    until(page, "window.view.reading?.exact")
    low, high = (int(p.values(411, 412, 307, 308)[0, 0]) for p in pyramids[meta["scan_id"]])
    assert heard(page, "scan-cursor")[-1]["x"] == 411
    assert page.evaluate("window.view.pixel(411, 307)") == {"low": low, "high": high}
    raw = known_scan(0)[0].radiograph.counts[1][411, ROWS - 1 - 307]
    until(page, "view.counts")
    assert f"High {high} T {100 * high / 65535:.2f} % ({raw} counts)" in page.inner_text("#bench .at")
    for tool in ("region", "measure"):
        page.evaluate("tool => { window.view.tool = tool; }", tool)
        page.mouse.move(*at(380, 290))
        page.mouse.down()
        page.mouse.move(*at(410, 310), steps=3)
        page.mouse.up()
    (region,), (measured,) = heard(page, "region-drawn"), heard(page, "measured")
    assert region["box"] == {"x0": 380, "y0": 290, "x1": 411, "y1": 311}
    assert region["mm"] == {"w": 31 * 4, "h": 21 * 5}  # 4 mm a column, 5 mm a channel
    assert measured["mm"] == pytest.approx(np.hypot(30 * 4, 20 * 5), rel=0.02)


def test_a_comparison_shows_the_same_place_of_both(shown, page):
    _, _, (first, second, _), _ = shown
    page.evaluate(
        """async ([left, right]) => {
          await import('/static/view/scan-compare.js');
          const pair = document.createElement('scan-compare');
          Object.assign(pair.style, {position: 'fixed', inset: '0', zIndex: 99});
          Object.assign(pair, {left, right: {...right, container: {x0: 100, y0: 0, x1: 1500, y1: 700}}});
          document.body.append(pair);
          await pair.updateComplete;
          window.pair = pair;
          window.heard = [];
        }""",
        [first, second],
    )
    until(page, "pair.views.length === 2 && pair.views.every((v) => v.drawn?.complete)")
    page.evaluate("pair.views[0].port.centre(750, 300, 2), pair.action('zoom-in'), pair.action('preset-3')")
    left, right = page.evaluate("pair.views.map((v) => [v.port.cx, v.port.cy, v.port.scale, v.low, v.high])")
    assert right[0] == pytest.approx(100 + left[0] * 1400 / 1500)
    assert right[2] == pytest.approx(left[2] * 1500 / 1400)
    assert right[3:] == left[3:] == [0, round(images.WHITE * 0.25)]
    box = page.locator("scan-compare .stage").first.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    until(page, "pair.views[0].cursor && pair.views[1].cursor")
    here, there = page.evaluate("pair.views.map((v) => v.cursor.x)")
    assert there == int(100 + (here + 0.5) * 1400 / 1500)
    page.evaluate("pair.action('invert', 'down')")
    assert page.evaluate("pair.views.map((v) => v.holds('invert'))") == [True, True]


def test_checksums_and_times_are_counted_right(shown, page):
    data = bytes(np.random.default_rng(1).integers(0, 256, 1003, np.uint8))
    script = "async (b) => (await import('/static/view/crc32.js')).crc32(Uint8Array.from(b))"
    assert page.evaluate(script, list(data)) == zlib.crc32(data)
    script = """async (knots) => { const c = await import('/static/view/portal-chart.js');
      return [...[-1, 5, 15, 21].map((s) => c.columnOf(s, knots)), ...[150, 50].map((x) => c.secondsOf(x, knots))]; }"""
    assert page.evaluate(script, [[0, 0], [100, 10], [200, 20]]) == [None, 50, 150, None, 15, 5]
