"""Declared against seen on the page: how a declaration was found, what contradicts it, and one that comes late."""

import msgspec

from scanner_io import recording
from scanner_io.model import DeclarationMatch, Quality
from tests import samples
from tests.console.conftest import page_of
from tests.console.site import ConsoleHere, Site, drawn_scan, row_of
from tests.console.test_page import open_next
from triage.service.later import Later

NUMBER = "CSQU3054383"


def put(folder, number, *, declaration, match, quality=(), findings=()):
    scan, result = drawn_scan(number)
    scan = msgspec.structs.replace(scan, declaration=declaration, declaration_match=match)
    result = msgspec.structs.replace(
        result, quality=(*result.quality, *quality), findings=(*result.findings, *findings), load="loaded"
    )
    path = folder / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, config={}, result=result)
    return row_of(path)


def test_how_a_declaration_was_found_and_what_came_late(browser, tmp_path):
    empty = samples.declaration(declared_empty=True, hs_codes=(), container_numbers=(NUMBER,))
    sure = DeclarationMatch(
        state="matched", by="container", read=("CSQU30543B3",), declared=NUMBER, confidence=0.9995,
        runner_up="CSQU3054388", runner_up_confidence=0.0004,
    )  # fmt: skip
    contradicts = (
        msgspec.structs.replace(
            drawn_scan(0)[1].findings[0], kind="declared_empty_but_loaded", reason="declared empty, but a load is seen"
        ),
    )  # fmt: skip
    nothing = DeclarationMatch(state="none", read=("TGHU7599330",))
    missing = Quality(code="declaration_missing", reason="no declaration: nothing that was declared fits")
    rows = [
        put(tmp_path, 0, declaration=empty, match=sure, findings=contradicts),
        put(tmp_path, 1, declaration=None, match=nothing, quality=(missing,)),
    ]  # fmt: skip
    site = Site(tmp_path, rows, lease_s=20.0)
    try:
        with ConsoleHere([site.address], tmp_path / "ana") as console, page_of(browser, console.url) as page:
            assert open_next(page) == rows[0].scan_id
            panel = page.inner_text("section:has(#declared-title)")
            assert "CSQU3054383 (matched, 99.95 % by container, next CSQU3054388 0.04 %)" in panel
            assert "CSQU30543B3" in panel and "declared empty, but a load is seen" in panel
            page.keyboard.press("c")
            page.keyboard.press("Enter")
            page.wait_for_selector(".decided-acknowledged")
            late = Later(
                result=rows[1].result, declaration=empty,
                match=msgspec.structs.replace(sure, sender="CARRIER", document="MAN9", late=True),
            )  # fmt: skip
            site.do(lambda outbox, dispatch: outbox.assess(rows[1].scan_id, late))
            assert open_next(page) == rows[1].scan_id
            panel = page.inner_text("section:has(#declared-title)")
            assert "TGHU7599330" in panel and "no declaration: nothing that was declared fits" in panel
            assert "declaration MAN9 of CARRIER for CSQU3054383 came after the scan was judged" in panel
    finally:
        site.stop()
