"""An earlier scan of the same container is found in an archive, and what was added since is said."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scanner_io import recording
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Declaration
from triage.cli import cli
from triage.service.earlier import EarlierScans

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "triage"))
from samples import scan as sample_scan
from test_container import radiograph
from test_findings import PITCH, put, stacks

DAY_NS = 86_400 * 10**9
ONE = Declaration(container_numbers=("CSQU3054383",), hs_codes=("0901",))


def write(folder, name, image, *, day=0, seed=0, papers=ONE):
    told = radiograph(image, state="raw", noise=0.003, seed=seed, column_pitch_mm=PITCH, channel_pitch_mm=PITCH)
    start = int(told.column_utc_ns[0]) + day * DAY_NS
    one = sample_scan(
        scan_id=f"north-20260131T09450{day}.250000Z-0f3a9c1e", radiograph=told, portal=None, start_utc_ns=start,
        end_utc_ns=start + DAY_NS // 1000, declaration=papers, expected=("radiograph", "declaration"), quality=(),
    )  # fmt: skip
    path = folder / f"{name}{recording.SUFFIX}"
    recording.write(path, one)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    old = write(folder, "old", stacks(0.6, top=300), day=0, seed=1)
    last = write(folder, "last", stacks(), day=1, seed=2)
    other = write(folder, "other", stacks(), day=2, papers=Declaration(container_numbers=("MSKU0000002",)))
    now = write(folder, "now", put(stacks(), 800, 260, 40, 40, 0.5), day=3, seed=3)
    return {"folder": folder, "old": old, "last": last, "other": other, "now": now}


def test_the_last_scan_before_is_taken(archive):
    readers = ForeignFiles()
    earlier = EarlierScans(sorted(archive["folder"].glob("*.h5")), readers)

    def of(name):
        found = earlier.of(recording.read(archive[name]).scan, readers)
        return None if found is None else found.counts[0]

    assert (of("now") == recording.read(archive["last"]).scan.radiograph.counts[0]).all()
    assert (of("last") == recording.read(archive["old"]).scan.radiograph.counts[0]).all()
    assert of("old") is None
    assert of("other") is None
    readers.close()


def test_triage_says_what_was_added(archive):
    def said(*options):
        done = CliRunner().invoke(cli, ["triage", str(archive["now"]), "--json", *options])
        assert done.exit_code == 0, done.output
        return [f["reason"] for f in json.loads(done.output.splitlines()[-1])["findings"]]

    assert not any("earlier scan" in reason for reason in said())
    assert any("earlier scan of the same container" in reason for reason in said("--previous", str(archive["folder"])))
