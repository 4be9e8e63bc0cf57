"""Faults at chosen points (``rlflow.engine.testing``): each strikes where it was wanted, and the engine survives it."""

import itertools
import os

import numpy as np
import psutil
import pytest
from waiting import is_gone, start_engine, wait_for

from rlflow import engine
from rlflow.engine import messages as m
from rlflow.engine.exceptions import ActorDiedError, WorkerCrashedError
from rlflow.engine.testing import (
    delay,
    drop,
    duplicate,
    engine_processes,
    full_disk,
    inject,
    kill_at_message,
    kill_at_task,
)


@engine.remote
def square(n):
    return n * n


@engine.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


@pytest.fixture(autouse=True)
def stopped(no_leaks):
    yield
    engine.shutdown()


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_a_worker_is_killed_at_the_nth_run(moment):
    with inject(kill_at_task("square", nth=5, times=2, moment=moment), kill_at_task("other")) as faults:
        start_engine()
        assert engine.get([square.remote(n) for n in range(20)]) == [n * n for n in range(20)]
        assert faults.happened() == [2, 0]
        assert faults.seen()[0] >= 22 and faults.seen()[1] == 0


def test_a_task_whose_worker_always_dies():
    with inject(kill_at_task("square", times=100)) as faults:
        start_engine()
        with pytest.raises(WorkerCrashedError, match="SIGKILL"):
            engine.get(square.options(max_retries=2).remote(3))
        assert faults.happened() == [3]


def test_an_actor_is_killed_at_the_nth_call():
    with inject(kill_at_task("Counter.add", nth=3)) as faults:
        start_engine()
        counter = Counter.remote()
        assert engine.get([counter.add.remote() for _ in range(2)]) == [1, 2]
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            engine.get(counter.add.remote())
        assert faults.happened() == [1]


def test_an_actor_with_a_log_is_killed_at_the_nth_call():
    with inject(kill_at_task("Counter.add", nth=8, moment="end")) as faults:
        start_engine()
        counter = Counter.options(max_restarts=-1, checkpoint_every=5).remote()
        assert engine.get([counter.add.remote() for _ in range(20)]) == list(range(1, 21))
        assert faults.happened() == [1]


@pytest.mark.parametrize("fault", [duplicate, delay])
def test_frames_that_come_late_or_twice(fault):
    """Order and results are as ever, whether the frame goes by the lane or by ZeroMQ."""
    more = {"seconds": 0.05} if fault is delay else {}
    kinds = (m.Submit, m.Execute, m.RawResults, m.Done, m.Call, m.Logged)
    with inject(*(fault(kind, nth=2, times=3, **more) for kind in kinds)) as faults:
        start_engine()
        counter = Counter.remote()
        rounds = itertools.count()

        def every_fault_has_struck():
            n = next(rounds)
            refs = [square.remote(np.full(3000, n)) for _ in range(4)]
            assert engine.get(counter.add.remote()) == n + 1
            assert all(np.array_equal(array, np.full(3000, n * n)) for array in engine.get(refs))
            assert engine.get(square.remote(n)) == n * n
            return faults.happened() == [3] * len(kinds)

        wait_for(every_fault_has_struck, "every fault strikes")


def test_a_result_that_is_lost_with_its_worker_is_asked_for():
    with inject(drop(m.RawResults, sender="w*", receiver="driver"), kill_at_task("square", nth=2)) as faults:
        start_engine(num_cpus=1)
        lost = square.remote(3)
        wait_for(lambda: faults.happened() == [1, 0], "the result is lost")
        assert not engine.wait([lost], timeout=0.05)[0]
        assert engine.get(square.remote(4)) == 16  # its worker dies at this one
        assert engine.get(lost, timeout=60) == 9


def test_the_daemon_is_killed_as_it_hands_out_tasks():
    with inject(kill_at_message(m.Execute, sender="node", nth=2)) as faults:
        start_engine()
        daemon = engine_processes().daemon
        assert engine.get(square.remote(1)) == 1
        lost = square.remote(2)
        assert not engine.wait([lost], timeout=0)[0]
        wait_for(lambda: is_gone(daemon), "the daemon dies")
        assert faults.happened() == [1]
        assert engine.get(lost) == 4  # from the next one


def test_an_engine_started_afterwards_has_none():
    with inject(kill_at_task("square", times=100)):
        pass
    assert "RLFLOW_FAULTS" not in os.environ
    start_engine()
    assert engine.get(square.options(max_retries=0).remote(3)) == 9


def test_faults_that_make_no_sense():
    with pytest.raises(ValueError, match="count from 1"):
        kill_at_task(nth=0)
    with pytest.raises(TypeError, match="Spec is not a message"):
        drop(m.Spec)


def test_the_processes_of_an_engine():
    with pytest.raises(RuntimeError, match="no local engine"):
        engine_processes()
    start_engine()
    processes = engine_processes()
    assert len(processes.workers) == 2
    below = {process.pid for process in psutil.Process(processes.supervisor).children(recursive=True)}
    assert {processes.daemon, processes.zygote, *processes.workers} == below
    os.kill(processes.workers[0], 9)
    wait_for(lambda: processes.workers[0] not in engine_processes().workers, "the worker ends")


def test_a_full_disk_stops_tasks_and_no_longer():
    start_engine()
    with full_disk():
        refs = [square.remote(n) for n in range(20_000)]
        assert engine.wait(refs, num_returns=len(refs), timeout=0.1)[1]
    assert engine.get(refs) == [n * n for n in range(20_000)]
