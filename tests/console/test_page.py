"""What an analyst does, by keyboard, in a real browser, against the real service."""

import re

from scanner_io.client import Workstation
from tests.console.conftest import page_of
from tests.console.site import Console, ConsoleHere, until


def open_next(page):
    """Press the key that opens the most urgent scan; return its id."""
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    return page.get_attribute(".row.current .row-button", "data-scan")


def test_from_new_scan_to_decision_sent_by_three_keys(page, shared_site):
    scan_id = open_next(page)
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_selector(".decided-held")
    assert shared_site.state(scan_id) == "leased", "a decision that can be undone has not been sent"
    page.wait_for_selector(".decided-acknowledged")
    assert shared_site.state(scan_id) == "decided"
    ((decision, applied),) = shared_site.decisions(scan_id)
    assert applied
    assert (decision.analyst, decision.verdict) == ("ana", "clear")


def test_inspect_needs_a_reason_and_can_be_undone(page, shared_site):
    scan_id = open_next(page)
    page.keyboard.press("x")
    page.wait_for_selector("#note:focus")
    assert "half of the light" in page.input_value("#note"), "the strongest finding's reason is proposed"
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    page.wait_for_selector(".problem:not(:empty)")
    page.keyboard.type("behind the third pallet")
    page.keyboard.press("Enter")
    page.wait_for_selector(".decided-held")
    page.keyboard.press("u")
    page.wait_for_selector(".draft")
    assert page.input_value("#note") == "behind the third pallet"
    page.wait_for_timeout(3300)
    assert shared_site.state(scan_id) == "leased"
    page.keyboard.press("Enter")
    page.wait_for_selector(".decided-acknowledged")
    assert shared_site.decisions(scan_id)[0][0].note == "behind the third pallet"


def test_a_reload_in_mid_decision_loses_nothing(page, shared_site):
    scan_id = open_next(page)
    page.keyboard.press("x")
    page.wait_for_selector("#note:focus")
    page.keyboard.press("Delete")
    page.keyboard.type("half written")
    page.wait_for_timeout(500)
    page.reload()
    page.wait_for_selector(".draft")
    assert page.get_attribute(".row.current .row-button", "data-scan") == scan_id
    assert page.input_value("#note") == "half written"
    page.locator("#note").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".decided-held")
    page.reload()
    page.wait_for_selector(".decided-acknowledged")
    assert len(shared_site.decisions(scan_id)) == 1


def test_a_lost_connection_is_told_and_the_decision_kept(browser, site, tmp_path, monkeypatch):
    monkeypatch.setattr("triage.service.dispatch.QUEUE_ROWS", 1)  # the page asks for the others behind it
    with (
        Console([site.address], tmp_path / "state", options=["--undo", "0.5"]) as console,
        page_of(browser, console.url) as page,
    ):
        lose_and_find(page, site)


def lose_and_find(page, shared_site):
    until(lambda: page.locator(".row-button").count() == 4, 30)
    scan_id = open_next(page)
    shared_site.stop()
    page.wait_for_selector(".banner.alarm", timeout=20_000)
    assert re.search(r"No connection to .* Last message \d+ s ago", page.inner_text(".banner.alarm"))
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_selector(".decided:has-text('kept here')")
    assert page.query_selector(".decided-acknowledged") is None
    shared_site.start()
    page.wait_for_selector(".decided-acknowledged", timeout=20_000)
    page.wait_for_selector(".banner", state="detached")
    assert shared_site.state(scan_id) == "decided"


def test_a_stolen_lease_is_told_and_blocks_the_decision(page, shared_site):
    scan_id = open_next(page)
    shared_site.steal(scan_id, "ben")
    page.wait_for_selector(".banner.warning")
    page.wait_for_selector(".verdict-clear:disabled")
    assert "no longer yours" in page.inner_text(".banner.warning")
    page.keyboard.press("c")
    assert page.query_selector(".draft") is None
    assert not shared_site.decisions(scan_id)


def test_who_moves_at_the_page_is_told_to_be_there(page):
    told = []
    page.on("request", lambda request: told.append(request.url) if request.url.endswith("/api/here") else None)
    page.wait_for_timeout(200)
    assert told == [], "a page before which nobody sits says nothing"
    with page.expect_response("**/api/here") as answer:
        page.mouse.move(300, 300)
    assert answer.value.status == 200
    page.mouse.move(310, 310)
    page.keyboard.press("Shift")
    assert len(told) == 1, "not more often than every ten seconds"


def test_rows_stay_where_they_are_under_the_pointer(page, shared_site):
    before = page.eval_on_selector_all(".row-button", "rows => rows.map(r => r.dataset.scan)")
    page.hover(f".row-button[data-scan='{before[-1]}']")
    gone = next(s for s in before[1:] if shared_site.state(s) == "pending")
    with Workstation(shared_site.address, "ben", capacity=0) as other:
        other.decide(other.claim(gone), "clear")
    page.wait_for_selector(".row.gone")
    assert page.eval_on_selector_all(".row-button", "rows => rows.map(r => r.dataset.scan)") == before
    page.mouse.move(700, 300)
    until(lambda: gone not in page.eval_on_selector_all(".row-button", "rows => rows.map(r => r.dataset.scan)"))


LONG = """async () => {
  const {takeQueue} = await import('/static/shell/queue.js');
  const {state} = await import('/static/shell/store.js');
  const rows = Array.from({length: 5000}, (_, n) => ({...state.rows[0], scan_id: `long-${n}`, mine: false}));
  window.takeLong = (count) => takeQueue({rows: rows.slice(0, count), counts: {recorded: 6000, pending: 5000}});
  window.takeLong(4800);
  window.arrivals = () => state.arrivals.length;
}"""
SCROLLED = "document.querySelector('.lists').scrollTop"


def test_every_row_of_a_long_queue_is_reached_by_the_keyboard(page):
    page.mouse.move(700, 300)
    page.evaluate(LONG)
    page.locator("[data-scan='long-0']").focus()
    for key, reached in (("ArrowDown", "long-1"), ("End", "long-4799"), ("ArrowUp", "long-4798")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[data-scan='{reached}']:focus")
    until(lambda: page.evaluate(SCROLLED) > 400_000)
    assert page.inner_text(".more") == "and 200 more"
    assert page.locator(".row-button").count() < 60, "only what is near is in the page"
    known = page.evaluate("window.arrivals()")
    page.evaluate("window.takeLong(5000)")
    page.keyboard.press("End")
    page.wait_for_selector("[data-scan='long-4999']:focus")
    assert page.evaluate("window.arrivals()") == known, "what was only further down is not new"
    page.keyboard.press("Home")
    page.wait_for_selector("[data-scan='long-0']:focus")
    until(lambda: page.evaluate(SCROLLED) == 0)


def test_keys_can_be_changed_and_the_page_speaks_spanish(page):
    page.evaluate("location.hash = 'settings'")
    page.get_by_role("button", name="Change the key for: next scan").click()
    page.keyboard.press("j")
    page.select_option(".card select >> nth=0", "es")
    page.wait_for_selector("text=Ajustes")
    page.keyboard.press("?")
    assert "siguiente escaneo" in page.inner_text(".dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    assert "Liberar" in page.inner_text(".verdict-clear")


def test_a_second_opinion_goes_from_desk_to_desk(browser, site, tmp_path):
    with (
        ConsoleHere([site.address], tmp_path / "ana", analyst="ana") as hers,
        ConsoleHere([site.address], tmp_path / "ben", analyst="ben") as his,
        page_of(browser, hers.url) as ana,
        page_of(browser, his.url) as ben,
    ):
        first = ana.get_attribute(".row-button", "data-scan")
        fetched = "SELECT DISTINCT who FROM events WHERE kind='fetched_ahead' AND scan_id=? ORDER BY who"

        def had():
            return [who for (who,) in site.do(lambda outbox, _: list(outbox.store.rows(fetched, (first,))))]

        until(lambda: had() == ["ana", "ben"])  # the first of a shift, before anybody asks for it
        assert site.state(first) == "pending"
        assert open_next(ana) == first
        ana.locator(".opinion").click()
        ana.wait_for_selector(".dialog select:focus")
        ana.select_option(".dialog select", "inspect")
        ana.locator(".dialog textarea").fill("the door end")
        ana.keyboard.press("Tab")
        ana.get_by_role("button", name="Give it on").click()
        ana.wait_for_selector(f".row-button[data-scan='{first}']:has-text('given on by you')")
        assert open_next(ana) != first, "who gave it on is not offered it again"
        ben.wait_for_selector(f".row-button[data-scan='{first}']:has-text('second opinion')")
        assert open_next(ben) == first
        ben.wait_for_selector("text=it is shown once you have decided")
        assert "door end" not in ben.content()
        ben.keyboard.press("c")
        ben.keyboard.press("Enter")
        ben.wait_for_selector("text=the door end")
        assert "You decided otherwise" in ben.inner_text(".panels")
