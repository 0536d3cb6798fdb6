"""The manual's chapters: what they show is run, what they name is there."""

import ast
import importlib
import json
import re
import sys
import tomllib
from typing import get_args

import msgspec
import pytest
from click.testing import CliRunner

from scanner_io import config, manual, wire
from scanner_io.conformance import CHECKS, NotAskedError
from scanner_io.model import Health, LineBlock, Rejected, ScanEnd, ScanStart
from tests.contract import check_order
from triage.cli import cli

CHAPTER = manual.chapter("driver")


def block(mark, chapter=CHAPTER):
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", chapter, re.S)
    assert found, f"no block {mark!r}"
    return found[1]


def run(*words):
    return CliRunner().invoke(cli, list(words))


def test_topics_are_listed_and_shown():
    listed = run("help")
    assert listed.exit_code == 0
    for topic, title in manual.topics().items():
        assert f"{topic:<12}{title}" in listed.output
        assert run("help", topic).output == manual.chapter(topic)
    assert {"driver", "wire"} <= set(manual.topics())


@pytest.mark.parametrize("topic", ["nothing", "../errors", "Driver"])
def test_a_topic_that_is_none_is_refused_with_those_there_are(topic):
    done = run("help", topic)
    assert done.exit_code != 0 and ", ".join(manual.topics()) in str(done.exception)


@pytest.mark.parametrize("topic", manual.topics())
def test_every_command_and_file_that_is_named_is_there(topic):
    text = manual.chapter(topic)
    for command in sorted(set(re.findall(r"(?:^|`)scanlane ([a-z]+(?: (?:list|new|conform|play))?)\b", text, re.M))):
        assert run(*command.split(), "--help").exit_code == 0, command
    for name in sorted(set(re.findall(r"`((?:drivers|scanner_io|triage)/[\w/]+(?:\.py)?)`", text))):
        module = name.removesuffix(".py").replace("/", ".")
        assert importlib.util.find_spec(module), name


# ----------------------------------------------------------------------------------------------- the chapter's driver


@pytest.fixture
def kestrel(tmp_path, monkeypatch):
    """The chapter's files in a folder, known as an installed package is; gives the modules of driver and rig."""
    for name in ("kestrel.py", "kestrel_rig.py"):
        (tmp_path / name).write_text(block(f"file: {name}"))
    project = tomllib.loads(block("file: pyproject.toml"))["project"]
    info = tmp_path / "scanlane_kestrel-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
            for group, points in project["entry-points"].items()
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("kestrel"), importlib.import_module("kestrel_rig")
    for name in ("kestrel", "kestrel_rig"):
        sys.modules.pop(name)


def test_the_driver_is_short():
    code = block("file: kestrel.py")
    ast.parse(code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 100


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_chapter_s_driver_does_what_every_driver_must(kestrel, check):
    rig = kestrel[1].KestrelRig()
    try:
        check(rig)
    except NotAskedError as why:
        pytest.skip(str(why))
    finally:
        rig.close()


def fed(kestrel, data, size=10_000):
    decoder = kestrel[0].Decoder(kestrel[0].Config(address="tcp://x:1"))
    events = [e for i in range(0, len(data), size) for e in decoder.feed(data[i : i + size], 1_000 + i)]
    return [*events, *decoder.lost(10**9)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_its_bytes_may_be_cut_anywhere(kestrel, size):
    events = fed(kestrel, kestrel[1].PASSAGE, size)
    check_order(events)
    assert sum(e.counts[0].shape[0] for e in events if isinstance(e, LineBlock)) == 100
    assert isinstance(events[-1], ScanEnd) and events[-1].reason == "complete"


def test_what_is_odd_is_told_and_no_vehicle_is_lost(kestrel):
    driver, rig = kestrel
    line = rig.frame(driver.LINE, [50_000] * 64)
    for data, kinds, words in (
        (b"garbage" + rig.PASSAGE, {Health, ScanStart, LineBlock, ScanEnd}, "7 bytes are no frame"),
        (40 * line, {Health, ScanStart, LineBlock, ScanEnd}, "before a start"),
        (rig.frame(driver.START) + rig.frame(driver.LINE, [1, 2]), {Health, Rejected}, "a line of 2 channels"),
        (rig.frame(9), {Health}, "kind 9"),
        (rig.frame(driver.START), {Rejected}, ""),
        (rig.frame(driver.START) + 40 * line, {ScanStart, LineBlock, ScanEnd}, ""),
    ):
        events = fed(kestrel, data)
        assert {type(e) for e in events} == kinds
        assert any(words in e.text for e in events if isinstance(e, Health)) or not words
        check_order([e for e in events if not isinstance(e, Rejected)])


def test_the_lane_of_the_chapter_is_one(kestrel, tmp_path):
    loaded = config.parse(block("example: lane"), "driver.md", base=tmp_path)
    (device,) = loaded.lane[0].device
    assert (device.driver, device.config.channels, device.config.detector.air_lines) == ("kestrel", 64, 32)


def test_the_command_of_the_chapter(kestrel, tmp_path):
    rig = f"{tmp_path / 'kestrel_rig.py'}:KestrelRig"
    done = run("drivers", "conform", "kestrel", "--rig", rig, "--check", "events_are_in_order", "--json")
    assert done.exit_code == 0 and '"met": true' in done.output, done.output


# ------------------------------------------------------------------------------------------------------- the wire


def test_the_wire_s_chapter_names_every_message_and_version():
    text = manual.chapter("wire")
    sides = re.split(r"^## ", text, flags=re.M)
    for part, messages in (("Messages of a client", wire.FromAnalyst), ("Messages of the service", wire.FromService)):
        (told,) = [s for s in sides if s.startswith(part)]
        rows = {name for row in re.findall(r"^\| (`.*?`) \|", told, re.M) for name in re.findall(r"`(\w+)`", row)}
        assert rows == {m.__struct_config__.tag for m in get_args(messages)}
    versions = re.findall(r"^\| (\d+) \|", sides[-1], re.M)
    assert [int(v) for v in versions] == list(range(wire.MINOR_MIN + 1, wire.MINOR_MAX + 1))
    assert f"`{wire.PROTOCOL.decode()}`" in text and f"{wire.MAX_INBOUND_BYTES >> 10} KiB" in text


def test_the_wire_s_example_is_a_message():
    shown = json.loads(block("example: decide", manual.chapter("wire")))
    encoded = msgspec.msgpack.encode(shown | {"statement": b"", "signature": b""})
    message = msgspec.msgpack.decode(encoded, type=wire.FromAnalyst)
    assert isinstance(message, wire.Decide) and message.decision.verdict == "inspect"
    assert set(shown) == {"type", *message.__struct_fields__}
    assert set(shown["decision"]) == set(message.decision.__struct_fields__)
