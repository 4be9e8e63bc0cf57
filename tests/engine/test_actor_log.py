"""The log of a recoverable actor: numbers without holes, and what is held for a replay."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlflow.engine.node.actor_log import ActorLog


@pytest.fixture
def log() -> ActorLog:
    log = ActorLog(every=10)
    log.started()
    return log


def test_calls_are_numbered_without_holes(log):
    assert log.append(1, b"call", []) and log.append(2, b"call", [])
    assert not log.append(4, b"call", [b"x"])  # 3 was lost with its process: nobody may see the result of 4
    assert not log.append(2, b"call", [b"x"])
    assert log.append(3, b"call", [])
    assert log.last == 3 and log.end().released == []


def test_a_checkpoint_lets_go_what_the_calls_before_it_needed(log):
    log.append(1, b"call", [b"a", b"b"])
    log.append(2, b"call", [b"a"])
    log.append(3, b"call", [b"c"])
    cut = log.cut(2, [b"d"])
    assert cut.held == [b"d"] and cut.released == [b"a", b"b", b"a"]
    assert log.end().released == [b"d", b"c"]


def test_the_next_checkpoint_lets_go_what_was_in_the_last_one(log):
    for number in (1, 2, 3):
        log.append(number, b"call", [])
    assert log.cut(1, [b"a", b"b"]).released == []
    cut = log.cut(3, [b"b"])
    assert cut.held == [b"b"] and cut.released == [b"a", b"b"]


@pytest.mark.parametrize("number", [0, 2, 4])
def test_checkpoints_that_cannot_be_used(log, number):
    """Old ones, and ones that cover calls which were lost."""
    for i in (1, 2, 3):
        log.append(i, b"call", [])
    log.cut(2, [])
    assert log.cut(number, [b"a"]) is None
    assert log.end().released == []


def test_what_a_call_gets_while_it_runs_is_kept_until_it_is_covered(log):
    log.append(1, b"call", [])
    assert log.keep(b"answer")  # for call 2
    assert log.cut(1, []).released == []
    log.append(2, b"call", [b"argument"])
    assert log.cut(2, []).released == [b"answer", b"argument"]


def test_what_init_made_is_kept_as_long_as_the_actor_lives():
    log = ActorLog(every=1)
    assert log.keep(b"child")
    log.started()
    log.append(1, b"call", [])
    assert log.cut(1, []).released == []
    assert log.end().released == [b"child"] and log.end().released == []


def test_without_replay_there_are_checkpoints_only():
    log = ActorLog(every=5, replays=False)
    assert not log.keep(b"answer")
    assert log.cut(5, [b"a"]).held == [b"a"]
    assert log.cut(5, [b"b"]) is None
    assert log.cut(10, []).released == [b"a"]


objects = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), objects),
        st.tuples(st.just("keep"), st.sampled_from([b"a", b"b"])),
        st.tuples(st.just("cut"), st.integers(-3, 1), objects),
    ),
    max_size=40,
)


@given(steps, st.booleans())
def test_nothing_is_let_go_too_early_or_forgotten(steps, replays):
    log = ActorLog(every=1, replays=replays)
    log.started()
    held: Counter[bytes] = Counter()  # at the node
    needed: dict[int, list[bytes]] = {}  # by call
    saved: list[bytes] = []
    covered = 0
    for what, *arguments in steps:
        if what == "append" and not replays:
            continue
        if what == "append":
            ahead, wanted = arguments
            counted = log.append(log.last + ahead, b"call", wanted)
            assert counted == (ahead == 1)
            if counted:
                held.update(wanted)
                needed.setdefault(log.last, []).extend(wanted)
        elif what == "keep":
            if log.keep(*arguments):
                held.update(arguments)
                needed.setdefault(log.last + 1, []).extend(arguments)
        else:
            back, refs = arguments
            cut = log.cut(log.last + back, refs)
            if cut is not None:
                covered, saved = log.last + back, refs
                held.update(cut.held)
                held.subtract(cut.released)
        still = Counter(saved)
        for number, wanted in needed.items():
            if number > covered:
                still.update(wanted)
        assert +held == still
    held.subtract(log.end().released)
    assert not +held and not -held
