"""The table of kinds, the search, and what becomes of candidates: scores, order, budget."""

import sys
from pathlib import Path

import pytest

from scanner_io.model import Scan
from triage.analysis.image import judge_image
from triage.analysis.kinds import KINDS, scores
from triage.analysis.pipeline import Profile, run, scores_of
from triage.analysis.regions import Candidate

sys.path.insert(0, str(Path(__file__).parent))
from test_container import radiograph, scene


def scan_of(image, **more):
    scan = radiograph(image, state="raw", noise=0.004)
    return Scan(
        scan_id="north-20260131T094501.250000Z-0f3a9c1e", lane="north", start_utc_ns=int(scan.column_utc_ns[0]),
        end_utc_ns=int(scan.column_utc_ns[-1]), expected=("radiograph",), radiograph=scan, **more,
    )  # fmt: skip


def test_scores_are_what_judgement_went_by():
    image = scene(load="empty")
    image[250:280, 610:640] *= 0.5
    scan = scan_of(image)
    told = scores_of(scan, Profile())
    best = {}
    for f in run(scan, Profile()).findings:
        best[f.kind] = max(f.score, best.get(f.kind, 0.0))
    assert told["extra_item_in_free_space"] == best["extra_item_in_free_space"] > 1
    assert set(told) <= set(KINDS)


def test_what_was_looked_for_and_not_found_scores_nothing():
    told = scores_of(scan_of(scene(load="empty")), Profile())
    assert told["extra_item_in_free_space"] == 0.0


def test_no_container_no_scores():
    image = scene()
    image[:] = 1.0
    image[420:470, 100:1400] = 0.6
    assert scores_of(scan_of(image), Profile()) == {}


def test_the_load_does_not_count():
    row = [Candidate("extra_item_in_free_space", 9.0, (i * 9, 0, i * 9 + 5, 5), "", 4) for i in range(4)]
    assert scores({"extra_item_in_free_space": row}) == {"extra_item_in_free_space": 0.0}


def test_every_kind_says_what_it_is():
    for name, kind in KINDS.items():
        assert kind.words, name


@pytest.mark.parametrize("load", ["empty", "stacks"])
def test_findings_are_of_kinds_in_the_table(load):
    judged = judge_image(radiograph(scene(load=load), state="raw", noise=0.004))
    assert {f.kind for f in judged.findings} <= {*KINDS, "opaque"}
