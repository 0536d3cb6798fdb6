"""Threads that share the strips of an image with their caller."""

import threading
import time

import pytest

from triage.service.strip_workers import StripWorkers


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("calls", [0, 1, 2, 7])
def test_map_gives_what_pythons_map_gives(threads, calls):
    with StripWorkers(threads) as workers:
        assert list(workers.map(lambda i, j: 10 * i + j, range(calls), range(calls))) == [11 * i for i in range(calls)]


def test_the_caller_takes_part_and_so_does_a_thread():
    meet = threading.Barrier(2, timeout=20)
    with StripWorkers(2) as workers:

        def who(_):
            meet.wait()
            return threading.get_ident()

        first, second = workers.map(who, range(2))
    assert first == threading.get_ident() != second


def test_calls_that_no_thread_has_begun_run_in_the_caller():
    busy, go_on = threading.Event(), threading.Event()
    with StripWorkers(2) as workers:

        def who(index):
            if index == 1:
                busy.set()
                assert go_on.wait(20)
            if index == 0:
                assert busy.wait(20)
            return threading.get_ident()

        results = workers.map(who, range(4))  # 0 in the caller, 1 in the thread, nobody for 2 and 3
        first = next(results)
        go_on.set()
        rest = list(results)
    assert first == threading.get_ident() != rest[0]
    assert len(rest) == 3 and set(rest) <= {first, rest[0]}


def test_a_failure_is_raised_when_the_others_have_ended():
    begun, ended = threading.Event(), []
    with StripWorkers(2) as workers:

        def run(index):
            if index == 0:
                assert begun.wait(20)
                raise ValueError("strip 0")
            begun.set()
            threading.Event().wait(0.1)
            ended.append(index)

        with pytest.raises(ValueError, match="strip 0"):
            list(workers.map(run, range(5)))
        assert ended == [1]


def test_a_thread_that_does_not_answer_is_noticed():
    busy, go_on = threading.Event(), threading.Event()

    def hang(index):
        if index:
            busy.set()
            assert go_on.wait(20)
        else:
            assert busy.wait(20)

    with StripWorkers(2) as workers:
        results = workers.map(hang, range(2))
        next(results)
        workers.standing_s()
        time.sleep(0.3)
        stood_s = workers.standing_s()
        go_on.set()
        assert list(results) == [None]
        until_s = time.monotonic() + 20
        while workers.standing_s() > 0.2 and time.monotonic() < until_s:
            time.sleep(0.01)
        answered_s = workers.standing_s()
    assert stood_s >= 0.3 and answered_s <= 0.2
    with StripWorkers(1) as alone:
        assert alone.standing_s() == 0.0
