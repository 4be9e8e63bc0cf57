"""Tasks that are run again for what they raised, and workers that leave after so many runs."""

import os

import pytest
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import TaskError

pytestmark = pytest.mark.usefixtures("cluster")


def note(path) -> int:
    """How often this was called with ``path``, this time included."""
    with open(path, "a") as file:
        file.write("x")
    return path.stat().st_size


@engine.remote
def fails_first(path, times, error=ValueError):
    count = note(path)
    if count <= times:
        raise error(f"try {count}")
    return count


@pytest.mark.parametrize("wanted", [True, [ValueError], [KeyError, ValueError], [Exception]])
def test_it_is_run_again(tmp_path, wanted):
    task = fails_first.options(retry_exceptions=wanted, max_retries=3)
    assert engine.get(task.remote(tmp_path / "runs", 2)) == 3


def test_as_often_as_max_retries_says_and_no_more(tmp_path):
    task = fails_first.options(retry_exceptions=True, max_retries=2)
    with pytest.raises(ValueError, match="try 3"):
        engine.get(task.remote(tmp_path / "runs", 10))
    assert (tmp_path / "runs").stat().st_size == 3


def test_for_ever(tmp_path):
    task = fails_first.options(retry_exceptions=True, max_retries=-1)
    assert engine.get(task.remote(tmp_path / "runs", 12)) == 13


@pytest.mark.parametrize("options", [{}, {"retry_exceptions": False}, {"retry_exceptions": [KeyError]}])
def test_not_for_what_was_not_asked_for(tmp_path, options):
    with pytest.raises(ValueError, match="try 1"):
        engine.get(fails_first.options(**options).remote(tmp_path / "runs", 1))


def test_an_argument_that_failed_is_no_reason(tmp_path):
    argument = fails_first.remote(tmp_path / "argument", 1)
    dependent = fails_first.options(retry_exceptions=True).remote(argument, 0)
    with pytest.raises(TaskError, match="try 1"):
        engine.get(dependent)
    assert (tmp_path / "argument").stat().st_size == 1


def test_what_its_children_made_is_not_made_twice(tmp_path, cluster):
    @engine.remote(retry_exceptions=True)
    def parent(folder):
        child = engine.get(fails_first.remote(folder / "child", 0))
        value = engine.get(engine.put(child))
        if note(folder / "parent") < 3:
            raise RuntimeError("again")
        return value

    runs = 3 if cluster == "inline" else 1  # inline there is no store in which they could be found again
    assert engine.get(parent.remote(tmp_path)) == runs
    assert (tmp_path / "child").stat().st_size == runs


@pytest.mark.parametrize("wrong", ["yes", [3], [BaseException], {"a": 1}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(TypeError, match="retry_exceptions must be"):
        fails_first.options(retry_exceptions=wrong)
    with pytest.raises((TypeError, ValueError), match="max_calls"):
        fails_first.options(max_calls=-1)


def test_a_worker_leaves_after_max_calls(cluster):
    if cluster == "inline":
        pytest.skip("there are no workers")

    @engine.remote(max_calls=2)
    def leaky():
        return os.getpid()

    pids = engine.get([leaky.remote() for _ in range(12)])
    assert max(pids.count(pid) for pid in set(pids)) <= 2
    assert len(set(pids)) >= 6


@engine.remote(max_calls=1)
def once():
    return 1


@engine.remote
def waits_for_one_that_runs_once():
    return engine.get(once.remote()) + 1


@engine.remote
class Value:
    def get(self):
        return 2


def test_a_worker_leaves_when_the_task_beneath_has_ended(cluster):
    for _ in range(3):
        assert engine.get(waits_for_one_that_runs_once.options(num_cpus=2).remote()) == 2
    if cluster == "local":
        wait_for(lambda: not api.current_backend().questions.census()["tasks"], "the node hears of their ends")


def test_an_actor_that_was_handed_to_a_worker_that_leaves(cluster):
    for _ in range(10):
        assert engine.get(once.remote()) == 1
        value = Value.remote()  # when the last worker may have told nobody yet that it leaves
        assert engine.get(value.get.remote()) == 2
