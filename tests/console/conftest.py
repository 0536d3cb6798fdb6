"""The browser, the site and the console that tests of the page share."""

import shutil
from pathlib import Path

import pytest

from tests.console.site import Console, Site, draw_recordings, make_recordings, row_of

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Recordings of simulated vehicles, judged, and of drawn scans whose pixels are known, as rows of a lane."""
    folder = tmp_path_factory.mktemp("recordings")
    make_recordings(folder)
    draw_recordings(folder)
    return [row_of(path) for path in sorted(Path(folder).rglob("*.scan.h5"))]


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the console's page is not tested; apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the test extra")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def site(tmp_path, recordings):
    running = Site(tmp_path, recordings)
    yield running
    running.stop()


@pytest.fixture
def console(tmp_path, site):
    with Console([site.address], tmp_path / "console", options=["--undo", "1"]) as running:
        yield running


@pytest.fixture
def page(browser, console):
    """The console's page, in a context of its own; whatever goes wrong in it fails the test."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console", lambda said: errors.append(said.text) if said.type == "error" and "404" not in said.text else None
    )
    opened.errors = errors
    opened.goto(console.url)
    opened.wait_for_selector(".row-button")
    yield opened
    context.close()
    assert not errors
