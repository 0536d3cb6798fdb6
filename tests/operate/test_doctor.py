"""Every check of the doctor, well and ill."""

import os
import socket
from importlib import metadata

import pytest
from click.testing import CliRunner

from scanner_io import security
from triage.cli import cli
from triage.operate import doctor, install
from triage.service import room
from triage.service.checkup import check_config

CONFIG = """\
state_dir = "state"
[storage]
min_free_mb = {min_free_mb}
[dispatch]
bind = "{bind}"
{keys}
[[lane]]
name = "north"
[[lane.device]]
driver = "{driver}"
path = "drop"
"""


class Well:
    """A host on which all is well; attributes of doctor.Host may be exchanged."""

    def __init__(self, tmp_path):
        self.place = tmp_path / "lane.toml"
        self.told = {
            "config": self.place, "root": tmp_path, "synchronised": lambda: True, "memory_mb": lambda: 8000,
            "files": lambda: 65536,
        }  # fmt: skip
        self.configure()
        install.install(install.files("scanlane"), tmp_path)

    def configure(self, *, keys="", bind="tcp://127.0.0.1:*", min_free_mb=16, driver="file_drop"):
        self.place.write_text(CONFIG.format(keys=keys, bind=bind, min_free_mb=min_free_mb, driver=driver))

    def found(self, check, **changed):
        found = [f for f in doctor.examine(doctor.Host(**{**self.told, **changed})) if f.check == check]
        assert found, check
        return found[0]


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "HIDDEN", ())
    return Well(tmp_path)


def missing(*names):
    def version(name):
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return "1"

    return version


def test_a_host_on_which_all_is_well(host, tmp_path):
    security.create_service(tmp_path / "keys")
    security.enrol(tmp_path / "keys", security.generate("ana").public, "analyst")
    host.configure(keys='keys = "keys"')
    findings = doctor.examine(doctor.Host(**host.told))
    assert {f.check: f.state for f in findings} == dict.fromkeys(
        ("config", "python", "packages", "disk", "clock", "port", "keys", "kernel cache", "HDF5 filters", "memory",
         "open files", "unit"), "ok",
    )  # fmt: skip


def test_config(host):
    host.place.write_text("state_dir = 3\n")
    assert {f.state for f in doctor.examine(doctor.Host(**host.told)) if f.check == "config"} == {"problem"}
    host.place.unlink()
    assert "cannot be read" in host.found("config").text


def test_python(host):
    assert host.found("python", version=(3, 10)).state == "problem"
    assert host.found("python", version=(3, 13)).state == "ok"


def test_packages(host):
    assert host.found("packages", distribution=missing("numba")).text.startswith("not installed: numba")
    assert host.found("packages", distribution=missing("starlette")).state == "ok"
    host.place.write_text(host.place.read_text() + '[outbox]\nurl = "postgresql://u@localhost/d"\nhub = "a"\n')
    found = host.found("packages", distribution=missing("psycopg"))
    assert found.state == "problem" and "scanlane[postgres]" in found.text


def test_disk(host, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "fsync_s", lambda folder: 0.2)
        assert host.found("disk").state == "warning"
        patch.setattr(doctor, "fsync_s", lambda folder: 2.0)
        assert "no decision can be acknowledged" in host.found("disk").text
    host.configure(min_free_mb=1 << 30)
    assert host.found("disk").state == "problem"
    assert room.Marks  # what says where intake stops

    def refused(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "fsync_s", refused)
    found = host.found("disk")
    assert found.state == "problem" and "Permission denied" in found.text


def test_the_sync_is_measured_and_leaves_nothing(tmp_path):
    assert 0 < doctor.fsync_s(tmp_path) < 60
    assert not list(tmp_path.iterdir())


def test_clock(host):
    assert host.found("clock", synchronised=lambda: False).state == "warning"
    assert host.found("clock", synchronised=lambda: None).state == "warning"
    found = host.found("clock", now_s=lambda: 0.0)
    assert found.state == "problem" and "1970-01-01" in found.text
    assert doctor.clock_synchronised() in (True, False, None)


def test_port(host, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        host.configure(bind=f"tcp://127.0.0.1:{other.getsockname()[1]}")
        assert host.found("port").state == "problem"
        (tmp_path / "state").mkdir()
        with (tmp_path / "state" / "lock").open("w") as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
            assert host.found("port").state == "ok", "our own service has it"


def test_the_port_of_the_metrics(host, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        host.configure()
        with host.place.open("a") as file:
            file.write(f'[metrics]\nbind = "127.0.0.1:{other.getsockname()[1]}"\n')
        assert host.found("metrics").state == "problem"
        (tmp_path / "drop").mkdir(exist_ok=True)
        problems, _ = check_config(host.place, 1.0)
        assert any(p.startswith("metrics.bind") for p in problems)
    assert host.found("metrics").state == "ok"


def test_keys(host, tmp_path):
    assert host.found("keys").state == "warning"
    host.configure(keys='keys = "keys"')
    assert host.found("keys").state == "problem", "no such folder"
    security.create_service(tmp_path / "keys")
    assert "nobody is enrolled" in host.found("keys").text
    security.enrol(tmp_path / "keys", security.generate("ana").public, "analyst")
    assert host.found("keys").state == "ok"
    (tmp_path / "keys" / security.SERVICE_KEY).chmod(0o644)
    assert host.found("keys").state == "problem"


def test_kernel_cache(host, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert host.found("kernel cache").state == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert host.found("kernel cache").state == "problem"
    monkeypatch.setattr("triage.kernels.cache_folder", lambda: None)
    assert host.found("kernel cache").state == "warning"


def test_filters(host):
    assert doctor.filter_available(32008) and not doctor.filter_available(32999)
    assert host.found("HDF5 filters", filter_there=lambda number: number != 32008).state == "problem"


def test_memory_and_files(host):
    assert host.found("memory", memory_mb=lambda: 500).state == "problem"
    assert host.found("open files", files=lambda: 1024).state == "problem"
    assert doctor.memory_limit_mb() > 0 and doctor.open_files_limit() > 0


def test_unit(host, tmp_path, monkeypatch):
    place = install.below(tmp_path, install.UNIT)
    text = place.read_text()
    place.write_text(text.replace("ProtectSystem=strict", "ProtectSystem=no"))
    found = host.found("unit")
    assert found.state == "warning" and "ProtectSystem" in found.text
    place.write_text(text.replace("User=scanlane", "User=root"))
    assert host.found("unit").state == "problem"
    place.write_text(text)
    assert host.found("unit").state == "ok"
    monkeypatch.setattr(install, "HIDDEN", ("/",))
    monkeypatch.setattr(install, "command", lambda: "//x/scanlane")
    place.write_text(install.unit("scanlane"))
    assert "hides from the service" in host.found("unit").text
    place.unlink()
    assert host.found("unit").state == "warning"


def test_the_command(host, monkeypatch, tmp_path):
    run = CliRunner()
    host.place.write_text("state_dir = 3\n")
    done = run.invoke(cli, ["doctor", str(host.place), "--root", str(tmp_path), "--json"])
    assert done.exit_code == 1 and '"problems": ' in done.output
    told = run.invoke(cli, ["doctor", str(host.place), "--root", str(tmp_path)])
    assert "problem  config" in told.output
