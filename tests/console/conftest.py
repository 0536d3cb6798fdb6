"""The browser, the site and the console that tests of the page share."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.console.site import Console, Site, draw_recordings, row_of, until
from triage.console.station import Station

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Recordings of drawn scans whose pixels are known, as rows of a lane."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_recordings(folder, ("REVIEW", "REVIEW", "ALARM") + ("REVIEW",) * 11)
    return [row_of(path) for path in sorted(Path(folder).rglob("*.scan.h5"))]


@pytest.fixture
def site(tmp_path, drawn):
    """A service of a test's own."""
    running = Site(tmp_path, drawn[:4], lease_s=3.0)
    yield running
    running.stop()


@pytest.fixture
def station(tmp_path, site):
    """A workstation without its page."""
    folder = tmp_path / "ana"
    folder.mkdir()
    running = Station((site.address,), "ana", folder, hold_s=0.2)
    until(lambda: running.queue()["rows"])
    yield running
    running.close()


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


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory, drawn):
    """The service that tests of the page share; each takes the next scans of its queue."""
    running = Site(tmp_path_factory.mktemp("site"), drawn, lease_s=20.0)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def console(tmp_path_factory, shared_site):
    """The console that tests of the page share."""
    with Console([shared_site.address], tmp_path_factory.mktemp("console"), options=["--undo", "3"]) as running:
        yield running


@pytest.fixture(scope="session")
def cookies(browser, console):
    """The session that the console's address was exchanged for: it works once."""
    context = browser.new_context()
    context.new_page().goto(console.url)
    found = context.cookies()
    context.close()
    return found


@pytest.fixture
def page(browser, console, cookies):
    """The page of the shared console, in a context of its own."""
    with page_of(browser, console.url, cookies) as opened:
        yield opened
        opened.evaluate(RELEASE)


@contextmanager
def page_of(browser, url, cookies=()):
    """Give the page of a console; whatever goes wrong in it fails the test."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-US")
    context.add_cookies(cookies)
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.errors = errors
    where = urlsplit(url)
    opened.goto(f"{where.scheme}://{where.netloc}/" if cookies else url)
    opened.wait_for_selector(".row-button")
    yield opened
    context.close()
    assert not errors


RELEASE = """async () => {
  const headers = {'X-Scanlane': '1', 'Content-Type': 'application/json'};
  const told = await (await fetch('/api/state')).json();
  if (told.open) await fetch('/api/release', {method: 'POST', headers, body: JSON.stringify({scan_id: told.open})});
  await fetch('/api/settings', {method: 'POST', headers, body: '{}'});
}"""
