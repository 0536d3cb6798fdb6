"""A whole shift by keyboard alone, over real and simulated scans, with a second opinion and a hand-over."""

from pathlib import Path

import msgspec

from scanner_io import recording
from scanner_io.foreign import ForeignFiles
from tests.console.conftest import page_of
from tests.console.site import ConsoleHere, Site, make_recordings, row_of, until, warm_judge
from triage.service.lane import Judge
from triage.service.offline import image_scan


def recorded(image: Path, folder: Path, judge: Judge, readers: ForeignFiles) -> None:
    """Write a recording of a real image as a lane would."""
    scan = image_scan(image, readers=readers)
    recording.write(folder / f"{scan.scan_id}.scan.h5", scan, config={}, result=judge(scan))


def test_a_whole_shift_by_keyboard_alone(browser, tmp_path, shared_data):
    folder = tmp_path / "recordings"
    with warm_judge() as judge, ForeignFiles() as readers:
        make_recordings(folder, judge)
        recorded(shared_data / "cargo" / "container_0901_0.jpg", folder, judge, readers)
    rows = [row_of(path) for path in sorted(folder.rglob("*.scan.h5"))]
    # what a lane files as CLEAR is in no queue; here every scan is to be looked at
    rows = [msgspec.structs.replace(r, result=msgspec.structs.replace(r.result, outcome="REVIEW")) for r in rows]
    site = Site(tmp_path, rows, lease_s=20.0)
    try:
        with (
            ConsoleHere([site.address], tmp_path / "state") as console,
            page_of(browser, console.url) as page,
        ):
            decided = work(page, site, len(rows))
    finally:
        site.stop()
    assert len(decided) == len(rows) == 3
    assert {verdict for verdict, _ in decided.values()} == {"clear", "inspect", "rescan"}
    assert all(applied for _, applied in decided.values())


def work(page, site, count):
    """Begin the shift, decide every scan, end it; return verdict and whether it counts, per scan."""
    page.get_by_role("button", name="Begin shift").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".dialog .primary:focus")
    page.keyboard.press("Enter")
    page.wait_for_selector(".shift-clock")
    page.evaluate("document.activeElement.blur()")
    seen = []
    for verdict in ("c", "x", "r")[:count]:
        page.keyboard.press("n")
        page.wait_for_selector(".verdict-clear:not(:disabled)")
        page.wait_for_selector("scan-view#main")
        scan_id = page.get_attribute(".row.current .row-button", "data-scan")
        assert scan_id not in seen, "a decided scan is not offered again"
        seen.append(scan_id)
        for key in ("f", "o", "o", "2", "1"):
            page.keyboard.press(key)
        page.keyboard.down("i")
        page.keyboard.up("i")
        page.keyboard.press(verdict)
        if verdict != "c":
            page.wait_for_selector("#note:focus")
            page.keyboard.press("End")
            page.keyboard.type(" looked at")
        page.keyboard.press("Enter")
        page.wait_for_selector(".decided-acknowledged")
    page.get_by_role("button", name="On shift").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#handover")
    page.locator("#handover").focus()
    page.keyboard.type("quiet night")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Begin shift").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=quiet night")
    page.keyboard.press("Escape")
    until(lambda: all(site.state(s) == "decided" for s in seen))
    return {s: (site.decisions(s)[0][0].verdict, site.decisions(s)[0][1]) for s in seen}
