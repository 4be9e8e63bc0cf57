"""Guarantee 2: a task has one result, also when its worker dies after its owner has heard and before the node has."""

import os
import random
import signal

import pytest
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.exceptions import TaskError, WorkerCrashedError
from rlflow.engine.node.doubts import Doubt, Doubts
from rlflow.engine.node.leases import Task
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import drop, engine_processes, inject, kill_at_task


@engine.remote
def drawn(runs):
    """A number that no second run would give again, and who drew it."""
    with open(runs, "a") as file:
        file.write("x")
    return random.random(), os.getpid()


@engine.remote
def first_of(pair):
    return pair[0]


@engine.remote(num_returns=2)
def two(runs):
    with open(runs, "a") as file:
        file.write("x")
    return random.random(), os.getpid()


@engine.remote
def fails():
    raise ValueError(os.getpid())


@engine.remote
class Submitter:
    def __init__(self, runs):
        self.ref = drawn.remote(runs)

    def has_it(self):
        return engine.get(self.ref), os.getpid()

    def passes_it_on(self):
        return [self.ref]


@pytest.fixture(autouse=True)
def stopped(no_leaks):
    yield
    engine.shutdown()




def store_of(ref):
    with StoreReader(api.current_backend().session.store) as reader:
        return reader.task(ref.binary()[:14])


def unfinished():
    return api.current_backend().questions.census()["tasks"]


@pytest.mark.parametrize("retries", [0, 3])
def test_what_the_owner_has_seen_is_the_result(tmp_path, retries):
    runs = tmp_path / "runs"
    with inject(drop(m.Done, sender="w*", times=1)) as faults:
        start_engine(num_cpus=1)
        seen = drawn.options(max_retries=retries).remote(runs)
        again = first_of.remote(seen)  # waits at the node for what the node does not hear
        number, pid = engine.get(seen)
        assert faults.happened() == [1]
        os.kill(pid, signal.SIGKILL)
        assert engine.get(again) == number
        assert engine.get(first_of.remote([number])) == number
        wait_for(lambda: not unfinished(), "the node hears of their ends")
        assert runs.read_text() == "x"
        history = store_of(seen)
        assert (history.outcome, history.attempts) == ("finished", 1)


def test_an_error_that_the_owner_has_seen_is_the_result():
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        failed = fails.options(max_retries=0).remote()
        with pytest.raises(TaskError) as caught:
            engine.get(failed)
        os.kill(caught.value.cause.args[0], signal.SIGKILL)
        wait_for(lambda: not unfinished(), "the node hears of its end")
        assert store_of(failed).outcome == "failed"


def test_one_of_two_returns_that_is_left_is_the_result(tmp_path):
    runs = tmp_path / "runs"
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        number, who = two.remote(runs)
        seen, pid = engine.get([number, who])
        later = first_of.remote([number])
        del who
        os.kill(pid, signal.SIGKILL)
        assert engine.get(engine.get(later)) == seen
        assert runs.read_text() == "x"


def test_what_nobody_has_any_more_is_run_again(tmp_path):
    """The node cannot record a value that is gone, and nobody can tell the second one from the first."""
    runs = tmp_path / "runs"
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        _, pid = engine.get(drawn.remote(runs))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: runs.read_text() == "xx", "it is run again")
        wait_for(lambda: not unfinished(), "it ends")


def test_what_the_owner_did_not_hear_is_run_again_and_counts(tmp_path):
    runs = tmp_path / "runs"
    with inject(kill_at_task("drawn", moment="end")):
        start_engine(num_cpus=1)
        first, _ = engine.get(drawn.remote(runs))
        assert first and runs.read_text() == "xx"


def test_an_owner_that_dies_is_not_waited_for(tmp_path):
    runs = tmp_path / "runs"
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        submitter = Submitter.remote(runs)
        (_, pid), owner = engine.get(submitter.has_it.remote())
        os.kill(owner, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        assert engine.get(first_of.remote([1])) == 1  # others are not held up
        assert unfinished() == 1 and runs.read_text() == "x"
        os.kill(owner, signal.SIGKILL)
        wait_for(lambda: runs.read_text() == "xx", "it is run again")
        wait_for(lambda: not unfinished(), "it ends")


def test_the_node_dies_with_the_worker(tmp_path):
    runs = tmp_path / "runs"
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        seen = drawn.remote(runs)
        again = first_of.remote(seen)
        number, pid = engine.get(seen)
        daemon = engine_processes().daemon
        os.kill(daemon, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        assert engine.get(again) == number
        assert runs.read_text() == "x"


def test_a_task_in_doubt_can_be_cancelled(tmp_path):
    with inject(drop(m.Done, sender="w*", times=1)):
        start_engine(num_cpus=1)
        submitter = Submitter.remote(tmp_path / "runs")
        (inner,) = engine.get(submitter.passes_it_on.remote())
        (_, pid), owner = engine.get(submitter.has_it.remote())
        os.kill(owner, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: engine.available_resources()["CPU"] == 1, "the node knows of the death")
        assert "has not said yet whether it has a result" in str(engine.why(inner))
        engine.cancel(inner)
        wait_for(lambda: not unfinished(), "it ends")
        os.kill(owner, signal.SIGCONT)
        assert engine.get(submitter.has_it.remote())[0][1] == pid


# ---------------------------------------------------------------- the state machines


def test_doubts_are_answered_by_owner_and_worker():
    doubts = Doubts()
    first, second, third = (Doubt(Task(name, b"f", {}), "killed", WorkerCrashedError) for name in (b"1", b"2", b"3"))
    doubts.add("driver", "w1", first)
    doubts.add("w5", "w1", second)
    doubts.add("w5", "w2", third)
    assert doubts.asked("w1") == [("driver", [first]), ("w5", [second])]
    assert doubts.about(first.task) == "w1" and not doubts.about(Task(b"1", b"f", {}))
    assert doubts.answered("driver", "w1") == [first]
    assert doubts.answered("driver", "w1") == []
    assert doubts.owner_ended("w5") == [("w1", second), ("w2", third)]
    assert doubts.asked("w2") == []


def test_what_was_promised_not_to_count_does_not():
    start_engine(num_cpus=1)
    recalling = api.current_backend().recalling
    recalling.promised[b"task"] = "w1"
    late = m.Outcome(b"task", 0, "w1", m.FINISHED, 0.0, 0.0, [])
    assert recalling.that_count("w1", [late]) == []
    assert recalling.that_count("node", [late]) == [late]
    assert not recalling.promised
