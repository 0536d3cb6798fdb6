import pytest

from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from tests.service.test_dispatch import Service, until
from tests.service.test_outbox import Clock, row, wait
from triage.service.escalation import LOOK_S, Escalation
from triage.service.outbox import Outbox


@pytest.fixture
def outbox(tmp_path):
    box = Outbox(tmp_path / "outbox.sqlite")
    yield box
    box.close()


def test_an_alarm_is_told_less_and_less_often_and_when_it_is_over(outbox):
    clock, logged, told = Clock(), [], []
    config = DispatchConfig(escalate_s=180, escalate_again_s=300, escalate_again_max_s=1000)
    escalation = Escalation(config, outbox, lambda e, **f: logged.append((e, f)), told.append, monotonic=clock)
    outbox.add(row(1))
    begin = clock.now
    times = []
    for _ in range(4000):
        before = len(told)
        escalation.step(0)
        if len(told) > before:
            times.append(clock.now - begin)
        if clock.now - begin == 100:
            assert escalation.alarm is None
            wait(outbox, 1, 200)
        clock.now += 1
    assert times == [102, 402, 1002, 2002, 3002]
    assert "nobody takes: 1; longest 3 min" in told[0].text
    assert "analysts connected: none" in told[0].text
    assert told[0].scan_id == row(1).scan_id
    assert [event for event, _ in logged].count("unattended") == 1  # the scan itself once
    outbox.taken(row(1).scan_id, outbox.lease_next("ana", 10).lease_id, "ana")
    clock.now += LOOK_S
    escalation.step(1)
    assert told[-1].over
    assert escalation.alarm is None
    kinds = [kind for (kind,) in outbox.store.rows("SELECT kind FROM events WHERE kind LIKE 'a%' OR kind LIKE 'u%'")]
    assert kinds == ["unattended", "alarm", "alarm", "alarm", "alarm", "alarm", "alarm_over"]


def test_a_scan_that_is_held_is_told_at_once(outbox):
    clock, told = Clock(), []
    escalation = Escalation(DispatchConfig(), outbox, lambda e, **f: None, told.append, monotonic=clock)
    for number in (1, 2):
        outbox.add(row(number))
        outbox.release(outbox.lease(row(number).scan_id, "ana", 10).lease_id, "no answer", 1)
        clock.now += LOOK_S
        escalation.step(1)
        assert len(told) == number
    assert "nobody takes: 2, held for a supervisor: 2;" in told[1].text


def test_a_clear_scan_that_was_selected_waits_for_a_person_like_any_other(outbox):
    for number in (1, 2):
        outbox.add(row(number, "CLEAR"))
        with outbox.store.transaction():
            outbox.store.change(
                "UPDATE outbox SET state='pending', selected=? WHERE scan_id=?", (number - 1, row(number).scan_id)
            )
        wait(outbox, number, 200)
    found = outbox.waiting(180)
    assert (found.scans, found.scan_id) == (1, row(2).scan_id)
    ((scan_id, text),) = outbox.escalate(180, 10)
    assert scan_id == row(2).scan_id
    assert text.startswith("CLEAR, selected to be looked at, nobody has taken it for 200 s")
    assert outbox.escalate(180, 10) == []


def test_who_watches_hears_of_it_until_somebody_looks(tmp_path):
    service = Service(tmp_path, escalate_s=1.0)
    try:
        scan_id = service.put()
        with Workstation(service.address, "zoe", capacity=0) as watching:
            assert until(lambda: watching.alarms)
            alarm = watching.alarms.popleft()
            assert (alarm.kind, alarm.scan_id, alarm.waiting, alarm.over) == ("unattended", scan_id, 1, False)
            with Workstation(service.address, "ana") as desk:
                offer = desk.next_offer(5)
                assert until(lambda: desk.alarms)  # who comes later is told too
                assert watching.queue().alarm.startswith("flagged scans that nobody takes: 1")
                desk.fetch(offer)
                assert until(lambda: watching.alarms)
                assert watching.alarms.popleft().over
                assert watching.queue().alarm == ""
                assert desk.decide(offer, "clear").applied
        assert any(event == "alarm" and fields["level"] == "error" for event, fields in service.log)
    finally:
        service.close()
