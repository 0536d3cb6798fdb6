import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import recording
from scanner_io.errors import StorageError
from tests import samples
from triage.cli import cli
from triage.study.device_trend import DAY_NS, device_trend, figures, html, lane_trend

CHANNELS, DAYS = 40, 20


def scan(day, *, dark=1.0, beam=1.0, stripes=0.0, bad=(7,), seed=0):
    """A scan of open beam on a day. dark, beam : relative to the first day; stripes : relative spread of channels."""
    rng = np.random.default_rng([day, seed])
    is_bad = np.isin(np.arange(CHANNELS), bad)
    state = samples.detector(
        CHANNELS, ("low",), dark=(np.full(CHANNELS, 100 * dark, np.float32),), bad_channels=is_bad,
        air=(np.full(CHANNELS, 8100, np.float32),),
    )  # fmt: skip
    level = 100 * dark + (8100 - 100 * dark) * beam * (1 + stripes * np.random.default_rng(3).standard_normal(CHANNELS))
    counts = (rng.poisson(np.broadcast_to(level, (60, CHANNELS))).astype(np.uint16),)
    start = samples.START_NS + day * DAY_NS
    return samples.scan(
        start_utc_ns=start, end_utc_ns=start + 10**9, expected=("radiograph",), portal=None, declaration=None,
        radiograph=samples.radiograph(
            60, CHANNELS, ("low",), detector=state, counts=counts,
            column_utc_ns=start + np.arange(60, dtype=np.int64) * 2_000_000,
        ),
    )  # fmt: skip


def trend(**drift):
    """Trends of two scans a day. drift : each figure of `scan` as a function of the day"""
    made = [scan(d, seed=s, **{k: f(d) for k, f in drift.items()}) for d in range(DAYS) for s in range(2)]
    return lane_trend([(one.start_utc_ns, figures(one)) for one in made])


def changed(told):
    return {name for name, one in told["series"].items() if one["changed"]}


def test_figures_of_one_scan():
    found = figures(scan(0, beam=0.95, stripes=0.02))["values"]
    assert found["dark.low"] == 100 and found["air.low"] == 8000 and found["bad"] == 1
    assert found["output.low"] == pytest.approx(0.95, abs=0.01)
    assert 1.0 < found["stripes.low"] < 3.0
    assert figures(scan(0, beam=0.5))["values"]["output.low"] is None  # nothing of it is open beam
    image = samples.radiograph(60, 40, ("low",), detector=samples.detector(40, ("low",), state="display"))
    assert figures(msgspec.structs.replace(scan(0), radiograph=image)) is None


def test_a_steady_device_has_no_change():
    told = trend()
    assert told["changes"] == [] and changed(told) == set() and told["scans"] == 2 * DAYS


def test_every_kind_of_ageing_is_told_and_no_other():
    assert changed(trend(dark=lambda d: 1 + 0.01 * d)) == {"dark.low"}
    assert changed(trend(beam=lambda d: 1 - 0.008 * d)) == {"output.low"}
    assert changed(trend(stripes=lambda d: 0.01 + 0.002 * d)) == {"stripes.low"}
    told = trend(bad=lambda d: (7,) if d < 12 else (7, 8, 20))
    assert told["new_bad_channels"] == [8, 20] and "8, 20" in told["changes"][-1]


def test_a_few_days_are_no_trend():
    made = [scan(d, dark=1 + d) for d in range(3)]
    told = lane_trend([(one.start_utc_ns, figures(one)) for one in made])
    assert not changed(told) and "fewer than" in told["series"]["dark.low"]["words"]


def test_the_command_reads_recordings_and_names_those_that_it_cannot(tmp_path):
    for day in range(2):
        one = msgspec.structs.replace(scan(day), scan_id=f"north-2026010{day + 1}T000000.000000Z-0f3a9c1e")
        recording.write(tmp_path / f"{one.scan_id}{recording.SUFFIX}", one)
    (tmp_path / f"broken{recording.SUFFIX}").write_bytes(b"nothing")
    done = CliRunner().invoke(cli, ["device", "trend", str(tmp_path), "--html", str(tmp_path / "t.html"), "--json"])
    told = json.loads(done.output)
    assert told["read"] == 3 and len(told["unreadable"]) == 1 and told["lanes"]["north"]["scans"] == 2
    page = (tmp_path / "t.html").read_text()
    assert page == html(told) and "simulated" in page and "<svg" in page
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no recording"):
        device_trend([tmp_path / "empty"])
