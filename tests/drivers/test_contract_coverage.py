"""Every driver of this package is held to the contract: there is no list of exceptions."""

from importlib import import_module
from pathlib import Path

import pytest

from scanner_io import driver as drivers
from tests.contract import DriverContract

OWN = sorted(name for name, module in drivers.names().items() if module.split(".")[0] == "drivers")


def test_there_are_drivers():
    assert "file_drop" in OWN


@pytest.mark.parametrize("name", OWN)
def test_has_a_contract_test(name):
    path = Path(__file__).with_name(f"test_{name}.py")
    assert path.is_file(), f"driver {name} has no test: write {path.name} as tests/contract.py describes"
    module = import_module(f"tests.drivers.{path.stem}")
    held = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, DriverContract) and c is not DriverContract
    ]
    assert any(c.driver == name and c.__name__.startswith("Test") for c in held), (
        f'{path.name} has no class Test…(DriverContract) with driver = "{name}"; see tests/contract.py'
    )


def test_every_module_of_drivers_is_registered():
    import drivers as package

    modules = {
        p.stem for p in Path(package.__file__).parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert modules - {"__init__"} == {drivers.names()[name].split(".")[-1] for name in OWN}
