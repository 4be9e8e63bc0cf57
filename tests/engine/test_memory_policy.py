"""Who is killed when memory runs out: fed by hand."""

import pytest

from rlflow.engine.node.memory_policy import LONGEST, SHORTEST, Candidate, seconds_to_next_look, victim

MB = 10**6


def chosen(*candidates):
    found = victim(candidates)
    return None if found is None else found.worker


def test_nobody_is_there():
    assert chosen() is None


def test_what_can_be_run_again_goes_first():
    once = Candidate("once", 900 * MB, age=9)
    again = Candidate("again", 300 * MB, age=1, retriable=True)
    assert chosen(once, again) == "again"
    assert chosen(once, Candidate("other", 100 * MB, age=10)) == "once"


def test_the_largest_goes():
    small = Candidate("small", 50 * MB, age=9, retriable=True)
    large = Candidate("large", 700 * MB, age=1, retriable=True)
    assert chosen(small, large) == "large"


def test_of_those_alike_the_newest_goes():
    sizes = (800, 700, 750)
    assert chosen(*(Candidate(f"w{i}", size * MB, age=i, retriable=True) for i, size in enumerate(sizes))) == "w2"


def test_an_idle_worker_goes_if_that_helps():
    task = Candidate("task", 600 * MB, age=5, retriable=True)
    assert chosen(task, Candidate("idle", 400 * MB, age=0, idle=True)) == "idle"
    assert chosen(task, Candidate("idle", 40 * MB, age=0, idle=True)) == "task"


@pytest.mark.parametrize(
    ("headroom", "cpus", "seconds"),
    [(-5, 2, SHORTEST), (0, 2, SHORTEST), (6e9, 2, 2.0), (6e9, 0, 4.0), (1e12, 4, LONGEST)],
)
def test_the_more_is_free_the_later_it_looks_again(headroom, cpus, seconds):
    assert seconds_to_next_look(headroom, cpus) == seconds
