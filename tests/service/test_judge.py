"""The judge of a lane: memory of live screenings, and what happens when one fails."""

import gc

import msgspec

from tests import samples
from triage.service.lane import LIVE_SCREENINGS, Judge


def fed(judge, image):
    live = judge.listen(image.detector)
    for first in range(0, image.columns, 20):
        live.push(tuple(c[first : first + 20] for c in image.counts))
    return live


def same(one, two):
    return msgspec.structs.replace(one, timings_ms={}) == msgspec.structs.replace(two, timings_ms={})


def test_memory_is_lent_and_comes_back_with_the_last_reference():
    judge = Judge(threads=1)
    image = samples.radiograph()
    held = [judge.listen(image.detector) for _ in range(LIVE_SCREENINGS)]
    assert all(held)
    assert judge.listen(image.detector) is None
    held.clear()
    gc.collect()
    assert judge.listen(image.detector) is not None
    judge.close()


def test_a_live_screening_gives_the_result_of_the_whole_image_again_and_again():
    judge = Judge(threads=1)
    for seed in range(3):
        scan = samples.scan(radiograph=samples.radiograph(seed=seed, columns=100))
        live = fed(judge, scan.radiograph)
        assert same(judge(scan, live), judge(scan))
        del live
    judge.close()


def test_a_live_screening_that_failed_costs_nothing_but_time():
    judge = Judge(threads=1)
    scan = samples.scan()
    live = fed(judge, scan.radiograph)
    live.push(("not an array",))
    assert live.failure
    live.push(scan.radiograph.counts)
    assert same(judge(scan, live), judge(scan))
    judge.close()
