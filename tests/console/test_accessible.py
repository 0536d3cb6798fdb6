"""Each view, looked at by axe-core; with forced colours and at 200 % zoom nothing is cut off sideways."""

from pathlib import Path

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
    for view in ("training", "metrics", "history", "settings"):
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
