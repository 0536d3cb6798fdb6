"""A real PostgreSQL server for the tests that want one."""

import pytest

from tests.service.postgres import Cluster, missing
from triage.service.store import Server


@pytest.fixture(scope="session")
def cluster():
    """A server of Debian's package, empty, without a network."""
    if why := missing():
        pytest.skip(why)
    with Cluster() as made:
        yield made


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request):
    """None for SQLite, else the server: every test that has this runs on both."""
    return None if request.param == "sqlite" else request.getfixturevalue("cluster")


@pytest.fixture
def place(database, tmp_path):
    """Where an outbox of this test alone may be made."""
    return tmp_path / "outbox.sqlite" if database is None else Server(database.new())
