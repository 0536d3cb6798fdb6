"""What an analyst does, by keyboard, in a real browser, against the real service."""

import time


def until(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def open_next(page):
    """Press the key that opens the most urgent scan; return its id."""
    page.keyboard.press("n")
    page.wait_for_selector(".verdict-clear:not(:disabled)")
    return page.get_attribute(".row.current .row-button", "data-scan")


def test_from_new_scan_to_decision_sent_by_three_keys(page, site):
    scan_id = open_next(page)
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_selector(".delivery-held")
    assert site.state(scan_id) == "leased", "a decision that can be undone has not been sent"
    page.wait_for_selector(".delivery-acknowledged")
    assert site.state(scan_id) == "decided"
    ((decision, applied),) = site.decisions(scan_id)
    assert applied
    assert (decision.analyst, decision.verdict) == ("ana", "clear")


def test_inspect_needs_a_reason_and_can_be_undone(page, site):
    scan_id = open_next(page)
    page.keyboard.press("x")
    page.wait_for_selector("#note:focus")
    assert page.input_value("#note"), "the strongest finding's reason is proposed"
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    page.wait_for_selector(".problem:not(:empty)")
    page.keyboard.type("behind the third pallet")
    page.keyboard.press("Enter")
    page.wait_for_selector(".delivery-held")
    page.keyboard.press("u")
    page.wait_for_selector(".draft")
    assert page.input_value("#note") == "behind the third pallet"
    time.sleep(1.5)
    assert site.state(scan_id) == "leased"
    page.keyboard.press("Enter")
    page.wait_for_selector(".delivery-acknowledged")
    assert site.decisions(scan_id)[0][0].note == "behind the third pallet"
