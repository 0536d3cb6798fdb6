"""Loads in numbers, their history by declared chapter, and the odd one out of a lot."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import recording
from scanner_io.model import Declaration
from triage.analysis import goods_history
from triage.analysis.goods_history import differs_from_declared, learn
from triage.analysis.goods_profile import NAMES
from triage.analysis.odd_one_out import LEAST_LOT, odd_one_out
from triage.cli import cli
from triage.study.odd_one_out import lot_of

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from samples import scan as sample_scan
from test_container import radiograph
from test_findings import PITCH, asked, empty, stacks

COFFEE = Declaration(hs_codes=("090111",), goods="coffee")


def loads(count, centre=0.0, seed=1, width=0.2):
    rng = np.random.default_rng(seed)
    return [rng.normal(centre, width, len(NAMES)) for _ in range(count)]


# -- traits


def test_traits_tell_stacks_apart_by_density_and_height():
    thin, dense = asked(stacks(0.6)).traits, asked(stacks(0.2)).traits
    low = asked(stacks(0.6, top=280)).traits
    density, height = (
        NAMES.index("areal density, in -ln T"),
        NAMES.index("height of the load, share of the container's"),
    )
    assert dense[density] - thin[density] == pytest.approx(np.log(3), abs=0.15)
    assert thin[height] - low[height] == pytest.approx(130 / 380, abs=0.05)
    assert abs(low[density] - thin[density]) < 0.1


def test_the_same_load_twice_has_the_same_traits():
    one, two = asked(stacks(0.4), seed=1).traits, asked(stacks(0.4), seed=2).traits
    assert np.abs(one - two).max() < 0.2


def test_an_empty_container_has_no_traits():
    assert asked(empty()).traits is None


# -- history


def test_a_load_unlike_its_chapter_is_told_with_what_differs():
    history = learn([("09", t) for t in loads(30)])
    strange = loads(1, seed=7)[0]
    strange[NAMES.index("areal density, in -ln T")] += 5
    strange[NAMES.index("coarse texture")] -= 5
    (told,) = differs_from_declared(strange, COFFEE, history)
    (usual,) = differs_from_declared(loads(1, seed=8)[0], COFFEE, history)
    assert told.score > 2 * usual.score
    assert told.at is None
    assert "areal density" in told.words
    assert "coarse texture" in told.words
    assert "HS chapter 09 (coffee)" in told.words


@pytest.mark.parametrize(
    ("declaration", "scans"),
    [(None, 30), (Declaration(), 30), (Declaration(hs_codes=("84",)), 30), (COFFEE, goods_history.LEAST_SCANS - 1),
     (Declaration(hs_codes=("0901", "8471")), 30)],
    ids=["no papers", "no codes", "another chapter", "too few", "one of two chapters"],
)  # fmt: skip
def test_without_a_history_nothing_is_said(declaration, scans):
    history = learn([("09", t) for t in loads(scans)])
    assert differs_from_declared(loads(1)[0], declaration, history) is None


def test_of_several_declared_chapters_the_nearest_counts():
    history = learn([*(("09", t) for t in loads(20)), *(("84", t) for t in loads(20, centre=4.0, seed=2))])
    both = Declaration(hs_codes=("0901", "8471"))
    (told,) = differs_from_declared(loads(1, centre=4.0, seed=3)[0], both, history)
    assert told.score < 2


# -- the odd one out


def test_the_box_that_holds_more_is_the_odd_one():
    lot = loads(6)
    lot[3][NAMES.index("areal density, in -ln T")] += 3
    lot[3][NAMES.index("fine texture along the container")] += 3
    odd = odd_one_out(lot)
    assert int(np.argmax([o.score for o in odd])) == 3
    assert odd[3].p_value < 0.05
    assert "areal density" in odd[3].words


def test_less_of_what_counts_one_sidedly_is_not_odd():
    lot = loads(8)
    lot[3][NAMES.index("densest tenth, in -ln T")] -= 3
    lot[5][NAMES.index("share of the cargo area that is filled")] -= 3
    assert min(o.p_value for o in odd_one_out(lot)) > 0.05


def test_boxes_that_differ_by_chance_are_seldom_odd():
    lowest = [min(o.p_value for o in odd_one_out(loads(7, seed=s, width=0.5))) for s in range(300)]
    assert 0.01 < np.mean(np.array(lowest) <= 0.05) < 0.09


def test_a_lot_of_four_is_too_small():
    assert odd_one_out(loads(LEAST_LOT - 1)) is None


def test_lots_are_of_one_shipper_and_one_commodity():
    box = Declaration(consignor="A", consignee="B", hs_codes=("0901",), goods="coffee")
    assert lot_of(box) == lot_of(msgspec.structs.replace(box, seals=("1",)))
    assert lot_of(box) != lot_of(msgspec.structs.replace(box, consignor="C"))
    assert lot_of(Declaration(consignor="A", consignee="B")) is None
    assert lot_of(None) is None


def test_the_command_finds_the_odd_box_of_a_lot(tmp_path):
    papers = Declaration(consignor="A", consignee="B", hs_codes=("0901",), goods="coffee")
    day = 86_400 * 10**9
    for n, t in enumerate((0.45, 0.44, 0.45, 0.46, 0.12)):
        image = radiograph(
            stacks(t), state="raw", noise=0.003, seed=n, column_pitch_mm=PITCH, channel_pitch_mm=PITCH
        )  # fmt: skip
        start = int(image.column_utc_ns[0]) + n * day
        one = sample_scan(
            scan_id=f"north-20260131T094501.25000{n}Z-0f3a9c1e", radiograph=image, portal=None, start_utc_ns=start,
            end_utc_ns=start + day // 1000, declaration=papers, expected=("radiograph", "declaration"), quality=(),
        )  # fmt: skip
        recording.write(tmp_path / f"{n}{recording.SUFFIX}", one)
    done = CliRunner().invoke(cli, ["study", "odd-one-out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "5 boxes A -> B: coffee (HS 0901)" in done.output
    assert "areal density" in done.output
    assert "1 lots, 0 too small, 0 recordings of no lot" in done.output
