"""What every driver must do (`scanner_io.conformance`), as tests that each driver's own test inherits.

In `tests/drivers/test_acme.py`:

    class TestAcme(DriverContract):
        driver = "acme"
        @pytest.fixture
        def rig(self, tmp_path):
            with FakePeer() as peer:
                yield AcmeRig(peer)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scanner_io.conformance import CHECKS, NotAskedError, Rig, check_order, drain

__all__ = ["DriverContract", "Rig", "check_order", "drain"]


class DriverContract:
    """Inherit, set `driver`, give a fixture `rig`."""

    driver: str = ""

    @pytest.fixture
    def rig(self) -> Rig:
        """Return the fake peer. Every driver's test gives its own."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `rig`")

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_contract(self, rig: Rig, check: Callable[[Rig], None]) -> None:
        assert rig.driver == self.driver, "the rig is of another driver"
        try:
            check(rig)
        except NotAskedError as why:
            pytest.skip(str(why))
