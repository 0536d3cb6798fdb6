"""The unit and its exposure, the commented configuration, and what installing and uninstalling leaves alone."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from scanner_io import config as configuration
from scanner_io import manual
from scanner_io.errors import ConfigError, DataError
from triage.cli import cli
from triage.operate import install as work

ACCEPTED = 2.0
"""The highest exposure of a unit, by systemd's measure."""


def changes(found):
    return {path.name: change for path, change in found}


@pytest.fixture
def files():
    return work.files("scanlane")


def test_the_unit_says_what_it_must():
    text = work.unit("scanlane", memory="6G", networks=["10.0.3.0/24"])
    for line in (
        "Type=notify", "Restart=always", "User=scanlane", "MemoryMax=6G", "LimitCORE=0", "ProtectSystem=strict",
        "NoNewPrivileges=yes", "CapabilityBoundingSet=", "SystemCallFilter=~@privileged", "MemoryDenyWriteExecute=no",
        "IPAddressDeny=any", "IPAddressAllow=10.0.3.0/24",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert re.search(r"^WatchdogSec=\d+$", text, re.M)
    assert not re.search(r"@[a-z]+@", text), "a place that was not filled in"
    assert "numba compiles the kernels at run time" in text
    assert f"ExecStart={work.command()} run /etc/scanlane/lane.toml --json" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_every_exposure_of_the_unit_is_explained_and_none_that_is_closed(tmp_path, files):
    unit = tmp_path / "scanlane.service"
    unit.write_text(files[0].content)
    found = work.measured(unit)
    assert found.level <= ACCEPTED
    assert set(found.left_open) == set(work.exposure())
    assert all(len(why) > 40 for why in work.exposure().values())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_measure_of_a_unit_that_is_open_is_worse(tmp_path, files):
    unit = tmp_path / "scanlane.service"
    shut = r"^(Protect|Private|Restrict|Capability|SystemCall|NoNew).*$"
    unit.write_text(re.sub(shut, "", files[0].content, flags=re.M))
    found = work.measured(unit)
    assert found.level > ACCEPTED
    assert not set(found.left_open) <= set(work.exposure())
    unit.write_text(files[0].content.replace("@system-service", "@no-such-group"))
    with pytest.raises(DataError, match="no-such-group"):
        work.measured(unit)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"user": "root"}, "--user root"),
        ({"user": "a b"}, "--user 'a b'"),
        ({"user": "x\nExecStart=/bin/sh"}, "--user"),
        ({"user": "scanlane", "memory": "much"}, "--memory 'much'"),
        ({"user": "scanlane", "networks": ["10.0.3.7/24"]}, "--network"),
        ({"user": "scanlane", "networks": ["localhost\nUser=root"]}, "--network"),
    ],
)
def test_what_makes_no_unit_is_refused(how, named):
    with pytest.raises(ConfigError, match=re.escape(named)):
        work.unit(how.pop("user"), **how)


def test_the_configuration_is_valid_as_it_is_and_with_every_comment_taken_away(files):
    text = files[2].content
    assert configuration.parse(text, "lane.toml", base=work.CONFIG.parent).lane[0].name == "north"
    bare = re.sub(r"^#([a-z_]+ = )", r"\1", text, flags=re.M)
    assert bare.count("\n#") < text.count("\n#") - 10
    bare = re.sub(r"^(profile|keys|checkpoints) = .*$", "", bare, flags=re.M)  # files that are not there
    assert configuration.parse(bare, "lane.toml", base=work.CONFIG.parent).retention.filed_days == 30


def test_values_shown_as_those_that_hold_without_them_are(files):
    text = files[2].content
    bare = configuration.parse(text, "lane.toml", base=work.CONFIG.parent)
    shown = {m[1]: m[2] for m in re.finditer(r"^#([a-z_]+) = (\S+)$", text, re.M)}
    for table, names in (
        (bare.storage, ("codec", "reserve_mb")),
        (bare.dispatch, ("lease_s", "heartbeat_s", "max_attempts", "escalate_s")),
        (bare.lane[0], ("join_window_s", "join_wait_s")),
    ):
        for name in names:
            assert json.loads(shown[name]) == getattr(table, name), name


def test_it_is_written_once_and_goes_again(tmp_path, files):
    assert set(changes(work.install(files, tmp_path)).values()) == {"written"}
    assert set(changes(work.install(files, tmp_path)).values()) == {"unchanged"}
    data = tmp_path / "var/lib/scanlane/recordings"
    data.mkdir(parents=True)
    keys = tmp_path / "etc/scanlane/keys"
    keys.mkdir()
    assert set(changes(work.uninstall(tmp_path)).values()) == {"removed"}
    assert data.is_dir() and keys.is_dir()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert work.uninstall(tmp_path) == []


def test_a_newer_version_exchanges_what_nobody_has_changed(tmp_path, files):
    work.install(files, tmp_path)
    newer = [f._replace(content=f.content + "# newer\n") for f in files]
    assert set(changes(work.install(newer, tmp_path)).values()) == {"updated"}
    assert work.below(tmp_path, work.UNIT).read_text() == newer[0].content


@pytest.mark.parametrize("known", [True, False])
def test_what_somebody_has_changed_is_neither_overwritten_nor_removed(tmp_path, files, known):
    place = work.below(tmp_path, work.CONFIG)
    if known:
        work.install(files, tmp_path)
    else:
        place.parent.mkdir(parents=True)
    place.write_text("state_dir = 'mine'\n")
    assert changes(work.install(files, tmp_path))["lane.toml"] == "changed by hand, new one beside it"
    assert place.read_text() == "state_dir = 'mine'\n"
    assert place.with_name("lane.toml.new").read_text() == files[2].content
    assert changes(work.uninstall(tmp_path)).get("lane.toml", "left, changed by hand") == "left, changed by hand"
    assert place.read_text() == "state_dir = 'mine'\n"
    assert not work.below(tmp_path, work.UNIT).exists()


def test_a_damaged_note_stops_everything(tmp_path, files):
    work.install(files, tmp_path)
    work.below(tmp_path, work.NOTED).write_text("{")
    for act in (lambda: work.install(files, tmp_path), lambda: work.uninstall(tmp_path)):
        with pytest.raises(DataError, match=r"installed\.json"):
            act()
    assert work.below(tmp_path, work.UNIT).exists()


def test_the_commands(tmp_path):
    run = CliRunner()
    printed = run.invoke(cli, ["install", "--user", "lanes", "--root", str(tmp_path), "--print"])
    assert "User=lanes" in printed.output and not list(tmp_path.iterdir())
    shown = run.invoke(cli, ["install", "--exposure", "--json"])
    assert json.loads(shown.output) == work.exposure()
    done = run.invoke(cli, ["install", "--user", "lanes", "--root", str(tmp_path), "--json"])
    assert done.exit_code == 0 and set(json.loads(done.output)["files"].values()) == {"written"}
    gone = run.invoke(cli, ["uninstall", "--root", str(tmp_path), "--json"])
    assert set(json.loads(gone.output)["files"].values()) == {"removed"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: what is called cannot be seen")
def test_the_unit_lets_libzmq_have_every_socket_that_it_asks_for(tmp_path):
    """One that is refused is an assertion in libzmq that ends the process: the service would never start."""
    bind = "import zmq; zmq.Context.instance().socket(zmq.ROUTER).bind('tcp://127.0.0.1:*')"
    calls = tmp_path / "calls"
    trace = ["strace", "-f", "-qq", "-e", "trace=socket", "-o", str(calls)]
    subprocess.run([*trace, sys.executable, "-c", bind], check=True, timeout=60)
    asked = set(re.findall(r"socket\((AF_\w+)", calls.read_text()))
    (line,) = re.findall(r"^RestrictAddressFamilies=(.*)$", work.unit("scanlane"), re.MULTILINE)
    assert "AF_INET" in asked
    assert asked <= set(line.split())


def test_the_manual_shows_the_steps_that_the_command_prints():
    page = manual.chapter("install")
    shown = [line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()]
    steps = work.next_steps("scanlane")
    assert [line for line in shown if line in steps] == steps
