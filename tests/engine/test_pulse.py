"""Who is suspected to hang: fed by hand, with a clock of its own."""

from rlflow.engine.node.pulse import MUCH_LONGER, WONDERED_AT, Pulse, Sign, UsualCalls

SILENCE = 10.0


def test_who_says_something_is_left_alone():
    pulse = Pulse(SILENCE)
    for now in range(0, 1000, 5):
        found = pulse.look(now, [Sign("w1", frames=now)])
        assert not (found.ask or found.silent or found.overdue)


def test_who_is_silent_is_asked_then_reported_once():
    pulse = Pulse(SILENCE)
    asked, reported = [], []
    for now in range(0, 200, 5):
        found = pulse.look(now, [Sign("w1", 7), Sign("w2", now)])
        asked += [(now, worker) for worker in found.ask]
        reported += [(now, *silent) for silent in found.silent]
    assert asked == [(10, "w1")]
    assert reported == [(20, "w1", 20)]
    assert pulse.is_silent("w1") and not pulse.is_silent("w2")


def test_who_answers_is_not_reported_and_asked_again_later():
    pulse = Pulse(SILENCE)
    frames, asked = 7, []
    for now in range(0, 100, 5):
        found = pulse.look(now, [Sign("w1", frames)])
        assert not found.silent
        asked += [now for _ in found.ask]
        frames += len(found.ask)
    assert asked == [10, 25, 40, 55, 70, 85]


def test_a_silence_that_ends_is_told_and_the_next_one_reported_again():
    pulse = Pulse(SILENCE)
    events = []
    for now in range(0, 100, 5):
        found = pulse.look(now, [Sign("w1", 7 if now < 50 else 8)])
        events += [(now, "silent") for _ in found.silent] + [(now, "back") for _ in found.back]
    assert events == [(20, "silent"), (50, "back"), (70, "silent")]


def test_who_is_new_or_was_away_begins_anew():
    pulse = Pulse(SILENCE)
    pulse.look(0, [Sign("w1", 7)])
    pulse.look(9, [])
    assert not pulse.look(15, [Sign("w1", 7)]).ask
    assert pulse.look(25, [Sign("w1", 7)]).ask == ["w1"]


def overdue(usual, tasks):
    """When a worker that always answers is reported, in these tasks at these times."""
    pulse = Pulse(SILENCE)
    found = []
    for now, task in tasks:
        found += [(now, lasts) for _, lasts in pulse.look(now, [Sign("w1", now, task, usual)]).overdue]
    return found


def test_a_task_far_beyond_its_usual_time_is_reported_once():
    assert overdue(0.1, [(now, b"t") for now in range(0, 1000, 5)]) == [(60, 60)]
    assert overdue(10.0, [(now, b"t") for now in range(0, 1000, 5)]) == [(300, 300)]
    assert (WONDERED_AT * SILENCE, MUCH_LONGER * 10.0) == (60, 300)


def test_functions_that_were_never_measured_and_blocked_tasks_are_not_called_long():
    assert overdue(None, [(now, b"t") for now in range(0, 1000, 5)]) == []
    assert overdue(0.1, [(now, b"t" if now % 10 else b"") for now in range(0, 1000, 5)]) == []


def test_each_task_has_its_own_time():
    tasks = [(now, b"first" if now < 50 else b"second") for now in range(0, 200, 5)]
    assert overdue(0.1, tasks) == [(110, 60)]


def test_who_is_silent_is_not_overdue_as_well():
    pulse = Pulse(SILENCE)
    found = [pulse.look(now, [Sign("w1", 7, b"t", 0.1)]) for now in range(0, 500, 5)]
    assert sum(len(each.silent) for each in found) == 1 and not any(each.overdue for each in found)


def test_a_call_is_overdue_once_and_only_by_the_usual_time_of_its_method():
    usual = UsualCalls(10.0)
    usual.ended(b"a", "step", 1.0)  # after its death, or of an actor of an earlier session
    assert not usual.is_overdue(b"a", b"1", "step", 1000.0)
    usual.follow(b"a")
    for _ in range(20):
        usual.ended(b"a", "step", 4.0)
    assert not usual.is_overdue(b"a", b"1", "train", 1000.0)
    assert not usual.is_overdue(b"a", b"1", "step", 119.0)
    assert usual.is_overdue(b"a", b"1", "step", 121.0)
    assert not usual.is_overdue(b"a", b"1", "step", 200.0)
    assert usual.is_overdue(b"a", b"2", "step", 121.0)
    usual.ended(b"a", "reset", 0.001)
    assert not usual.is_overdue(b"a", b"3", "reset", 59.0)
    assert usual.is_overdue(b"a", b"3", "reset", 61.0)
    usual.forget(b"a")
    assert not usual.is_overdue(b"a", b"4", "reset", 61.0)
