"""Each view, looked at by axe-core; with forced colours and at 200 % zoom nothing is cut off."""

from pathlib import Path

import pytest

AXE = (Path(__file__).parent / "axe.min.js").read_text()
RUN = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + (n.any[0]?.message ?? '')).join(' | '))"""


def problems(page):
    found = page.evaluate(RUN)
    # axe measures contrast with styles of its own, which the page's policy refuses
    page.errors[:] = [error for error in page.errors if "inline style" not in error]
    return found


def test_no_view_has_a_serious_violation(page):
    page.evaluate(AXE)
    found = {"nothing open": problems(page)}
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    page.keyboard.press("x")
    page.wait_for_selector("#note:focus")
    found["deciding"] = problems(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    found["keys"] = problems(page)
    page.keyboard.press("Escape")
    for view in ("second", "training", "metrics", "history", "settings"):
        page.evaluate(f"location.hash = '{view}'")
        page.wait_for_selector("main.page h1, main.page h2")
        found[view] = problems(page)
    assert not {view: said for view, said in found.items() if said}


def test_at_twice_the_size_and_in_forced_colours_nothing_is_cut_off(page):
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    page.set_viewport_size({"width": 683, "height": 384})
    assert page.evaluate("document.documentElement.scrollWidth") <= 683
    for name in ("clear", "inspect", "rescan"):
        page.locator(f".verdict-{name}").scroll_into_view_if_needed()
        assert page.locator(f".verdict-{name}").is_visible()


FLOOD = """async (most) => {
  const {setSetting, state, changed} = await import('/static/shell/store.js');
  setSetting('flood', most);
  state.arrivals = Array(most).fill(Date.now());
  changed();
}"""


@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080), (683, 384)], ids=["small", "large", "twice the size"])
def test_dialogs_and_a_flood_fit_and_have_no_serious_violation(page, size):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate(AXE)
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    page.evaluate(FLOOD, 10)
    page.wait_for_selector(".lane-group")
    found = {"flood": problems(page)}
    openers = {
        "shelve": (".lane-group h3 button", "input:focus"), "opinion": (".opinion", "select:focus"),
        "shift": (".top button", ".primary:focus"),
    }  # fmt: skip
    for name, (opener, focus) in openers.items():
        page.locator(opener).first.click()
        page.wait_for_selector(f".dialog-{name} {focus}")
        found[name] = problems(page)
        box = page.locator(".dialog").bounding_box()
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= size[1], name
        page.keyboard.press("Escape")
        page.wait_for_selector(".dialog", state="detached")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON", "the keyboard goes back to where it was"
    assert not {view: said for view, said in found.items() if said}


def test_at_twice_the_size_an_open_scan_is_seen_without_scrolling(page):
    page.set_viewport_size({"width": 683, "height": 384})
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    page.wait_for_selector("scan-view#main .stage")
    stage = page.locator("scan-view#main .stage").bounding_box()
    decide = page.locator(".decide").bounding_box()
    assert page.evaluate("scrollY") == 0
    assert stage["y"] > 0
    assert min(stage["y"] + stage["height"], decide["y"]) - stage["y"] > 384 / 3, "a third of the screen is picture"
    assert decide["y"] + decide["height"] <= 384
