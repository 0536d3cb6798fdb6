"""The conformance kit: a stranger's driver made from the skeleton, and every way to break it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scanner_io import conformance, skeleton
from scanner_io.errors import ConfigError
from triage.cli import cli

NAME = "acme_gate"
RIG = f"{NAME}_rig.py:AcmeGateRig"

BREAKS = {
    # what is broken: (text of the driver, text in its place, checks that must name it, words of the report)
    "sleep in read": (
        "    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "    driver = LinkDriver(channel, Decoder(config), info, config.silence_s)\n    read = driver.read\n"
        "    def slow(timeout_s):\n        import time\n        time.sleep(1.0)\n        return read(timeout_s)\n"
        "    driver.read = slow\n    return driver",
        "time_out_is_a_value", "a sleep or a wait of its own",
    ),
    "thread left running": (
        "    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "    driver = LinkDriver(channel, Decoder(config), info, config.silence_s)\n    opened = driver.open\n"
        "    def start():\n        import threading\n        threading.Thread(target=threading.Event().wait, "
        "daemon=True, name='poller').start()\n        return opened()\n    driver.open = start\n    return driver",
        "leaves_nothing", "threads ['poller'",
    ),
    "I/O in the constructor": (
        "    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "    channel.open()\n    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "construction_touches_nothing", "that is for open()",
    ),
    "wrong dtype": (
        "column_utc_ns=np.array([utc_ns], np.int64),",
        "column_utc_ns=np.array([utc_ns], np.int64),\n        )\n        block = LineBlock(source_ref=self._scan, "
        "first_column=self._columns - 1, counts=(counts.astype(np.float64),),\n            "
        "column_utc_ns=np.array([utc_ns], np.int64),",
        "events_are_in_order", "expected uint16",
    ),
    "swallowed error": (
        "    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "    driver = LinkDriver(channel, Decoder(config), info, config.silence_s)\n    read = driver.read\n"
        "    def quiet(timeout_s):\n        try:\n            return read(timeout_s)\n        except Exception:\n"
        "            return None\n    driver.read = quiet\n    return driver",
        "lost_link_ends_what_was_open_first", "caught and passed over",
    ),
    "close that hangs": (
        "    return LinkDriver(channel, Decoder(config), info, config.silence_s)",
        "    driver = LinkDriver(channel, Decoder(config), info, config.silence_s)\n    def hang():\n"
        "        import threading\n        threading.Event().wait()\n    driver.close = hang\n    return driver",
        "close_at_any_time_and_twice", "hangs after",
    ),
    "foreign bytes that raise": (
        "except (ValueError, OverflowError):", "except ZeroDivisionError:",
        "foreign_bytes_are_told_not_raised", "tell foreign bytes by Health",
    ),
    "scan without an end": (
        'return self._end(utc_ns, "complete" if self._columns else "aborted")', "return []",
        "events_are_in_order", "each ended",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A driver written by `scanlane drivers new` and installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("stranger")
    done = CliRunner().invoke(cli, ["drivers", "new", NAME, "--out", str(folder / "src")])
    assert done.exit_code == 0, done.output
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(folder / "src")]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return folder / "src", site


def conform(folder, site, *words, timeout=60):
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(folder), str(site), str(root)])
    return subprocess.run(
        [sys.executable, "-m", "triage.cli", "drivers", "conform", NAME, "--rig", RIG, *words], cwd=folder,
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=timeout, check=False,
    )  # fmt: skip


def test_the_skeleton_unchanged_conforms(stranger):
    done = conform(*stranger, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["met"] is True, report
    assert [c["check"] for c in report["checks"]] == list(conformance.CHECKS)
    assert {c["result"] for c in report["checks"]} == {"passed"}


def test_the_skeletons_own_test_passes(stranger):
    folder, site = stranger
    path = os.pathsep.join([str(folder), str(site), str(Path(__file__).resolve().parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{NAME}.py"], cwd=folder,
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_driver_is_caught_by_name(stranger, tmp_path, what):
    _, site = stranger
    old, new, check, words = BREAKS[what]
    assert skeleton.write("acme_other", tmp_path / "unused")  # the name is free: the stranger's is not in this process
    for path in skeleton.write(NAME, tmp_path / "src"):
        text = path.read_text()
        if path.name == f"{NAME}.py":
            assert old in text
            text = text.replace(old, new)
        if path.name == f"{NAME}_rig.py":
            limits = "limit_s = spare_s = 0.3" if "hangs" in what else "limit_s = 2.0"
            text = text.replace("    driver = ", f"    {limits}\n    driver = ", 1)
        path.write_text(text)
    done = conform(tmp_path / "src", site, "--check", check, "--json")
    assert done.returncode == 1
    (verdict,) = json.loads(done.stdout)["checks"]
    assert verdict["result"] == "failed" and words in verdict["text"], verdict


def test_what_cannot_be_checked_is_refused(tmp_path):
    for words, told in (
        (["file_drop"], "give --rig"), ([NAME, "--rig", "json:dumps"], "pip install -e"),
        (["file_drop", "--rig", "nowhere:Rig"], "nowhere"),
        (["file_drop", "--rig", "x.py:Rig"], "is no Python file"), (["file_drop", "--rig", "json:Rig"], "Rig"),
        (["file_drop", "--rig", "json:dumps", "--check", "all"], "no check all"),
    ):  # fmt: skip
        done = CliRunner().invoke(cli, ["drivers", "conform", *words])
        assert done.exit_code != 0 and told in done.output + str(done.exception), (words, done.output)


@pytest.mark.parametrize(("name", "words"), [("Acme", "small letters"), ("file_drop", "already"), ("class", "small")])
def test_a_name_that_cannot_be_is_refused(tmp_path, name, words):
    with pytest.raises(ConfigError, match=words):
        skeleton.write(name, tmp_path)


def test_nothing_is_written_over(tmp_path):
    skeleton.write(NAME, tmp_path)
    with pytest.raises(ConfigError, match="there already"):
        skeleton.write(NAME, tmp_path)
