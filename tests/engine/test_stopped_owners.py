"""An owner that does not take its results holds up its own tasks and no others, and no memory grows without bound."""

import asyncio
import os
import signal
import time

import psutil
import pytest
from scheduling import Feed
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api, owners
from rlflow.engine.node.leases import GONE, Task
from rlflow.engine.owners import Owners

LARGE = 8000
"""Bytes of a result that still travels in messages."""

ROUNDS = 20_000


@engine.remote
def result(size, gate=None):
    return bytes(size)


@engine.remote
def opened(gate):
    while not gate.exists():
        time.sleep(0.001)


@engine.remote
class Submitter:
    """A driver-like program."""

    def pid(self):
        return os.getpid()

    def submit(self, count, size, gate):
        ref = opened.remote(gate)
        self.refs = [result.remote(size, ref) for _ in range(count)]

    def check(self, size):
        return all(len(value) == size for value in engine.get(self.refs))


def workers() -> list[psutil.Process]:
    supervisor = psutil.Process(api.current_backend().supervisor_pid)
    return [process for process in supervisor.children(recursive=True) if process.ppid() != supervisor.pid]


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=2)
    yield
    engine.shutdown()


def test_a_stopped_owner_stalls_itself_only(started, tmp_path):
    submitter, pid = stopped_submitter(tmp_path / "gate")
    try:
        wait_for(stalled, "its tasks are held back")
        began = time.monotonic()
        assert len(engine.get([result.remote(10) for _ in range(1000)])) == 1000
        assert time.monotonic() - began < 40
        grown = sum(process.memory_info().rss for process in workers() if process.pid != pid)
        assert grown < 500e6 < ROUNDS * LARGE * 3.5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert engine.get(submitter.check.remote(LARGE))


def test_the_tasks_of_a_stopped_owner_that_dies_end(started, tmp_path):
    _submitter, pid = stopped_submitter(tmp_path / "gate")
    wait_for(stalled, "its tasks are held back")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: api.current_backend().questions.census()["tasks"] == 0, "all its tasks end")


class Producer:
    """Makes nothing before the gate is open."""

    def __init__(self, gate):
        self.gate = gate
        self.made = []

    def make(self, number, size):
        while not self.made and not self.gate.exists():
            time.sleep(0.001)
        self.made.append(number)
        return bytes(size)

    def count(self):
        return len(self.made)

    def in_order(self):
        return self.made == sorted(self.made)


class AsyncProducer(Producer):
    async def make(self, number, size):
        while not self.made and not self.gate.exists():
            await asyncio.sleep(0.1)
        self.made.append(number)
        return bytes(size)


@engine.remote
class Caller:
    def pid(self):
        return os.getpid()

    def call(self, producer, count, size):
        self.refs = [producer.make.remote(i, size) for i in range(count)]

    def check(self, size):
        return all(len(value) == size for value in engine.get(self.refs))


PRODUCERS = {
    "one at a time": engine.remote(Producer), "threads": engine.remote(max_concurrency=3)(Producer),
    "event loop": engine.remote(AsyncProducer),
    "logged": engine.remote(max_restarts=1, checkpoint_every=0)(Producer),
}


@pytest.mark.parametrize(("how", "comes_back"), [*((how, True) for how in PRODUCERS), ("one at a time", False)])
def test_a_stopped_caller_of_an_actor_stalls_itself_only(started, tmp_path, how, comes_back):
    gate = tmp_path / "gate"
    producer = PRODUCERS[how].remote(gate)
    caller = Caller.remote()
    pid = engine.get(caller.pid.remote())
    engine.get(caller.call.remote(producer, ROUNDS, LARGE))
    os.kill(pid, signal.SIGSTOP)
    gate.touch()

    def stands_still():
        before = engine.get(producer.count.remote())
        time.sleep(0.1)
        return before and engine.get(producer.count.remote()) == before

    try:
        wait_for(stands_still, "its calls are held back")
        made = engine.get(producer.count.remote())
        assert owners.MAX_BYTES / 2 < made * LARGE < owners.MAX_BYTES * 1.5
    finally:
        os.kill(pid, signal.SIGCONT if comes_back else signal.SIGKILL)
    if comes_back:
        assert engine.get(caller.check.remote(LARGE))
        wait_for(lambda: engine.get(producer.count.remote()) == ROUNDS, "all calls run")
    else:  # the last ones may not have left it before it was stopped
        wait_for(lambda: engine.get(producer.count.remote()) > made, "the calls that it held back run")
    assert how not in ("one at a time", "logged") or engine.get(producer.in_order.remote())


def stopped_submitter(gate):
    """An actor that submitted tasks and was stopped before any of them ran, and its pid."""
    submitter = Submitter.remote()
    pid = engine.get(submitter.pid.remote())
    engine.get(submitter.submit.remote(ROUNDS, LARGE, gate))
    os.kill(pid, signal.SIGSTOP)
    gate.touch()
    return submitter, pid


def stalled() -> bool:
    """Whether tasks wait though CPUs are free, and stay."""
    backend = api.current_backend()
    before = backend.questions.census()["tasks"]
    time.sleep(0.05)
    free = engine.available_resources() == engine.cluster_resources()
    return free and before > 0 and backend.questions.census()["tasks"] == before


# ---------------------------------------------------------------- the state machine


def test_an_owner_is_asked_once_and_stalls_at_the_bound():
    state = Owners()
    size = owners.ASK_BYTES // 2 + 1
    assert not state.sent("w1", size)
    assert state.sent("w1", size) and state.look("w1") == (True, False)
    while state.sent("w1", size):
        ask, stalls = state.look("w1")
        assert not ask
        if stalls:
            break
    held = Task(b"t", b"f", {})
    state.stalled["w1"].append(held)
    assert state.look("w1") == (False, False)
    assert not state.sent("w2", size)
    assert state.answered("w1") == [held] and not state.stalled


def test_an_answer_takes_off_what_had_been_sent_when_it_was_asked_for():
    state = Owners()
    state.sent("w1", owners.ASK_BYTES + 1)
    assert state.look("w1") == (True, False)
    state.sent("w1", owners.MAX_BYTES)
    assert state.answered("w1") == []
    assert state.sent("w1", 0) and state.look("w1") == (True, False)
    assert state.answered("w1") == []
    assert not state.sent("w1", 1)


def test_what_is_taken_out_of_the_scheduler_comes_back_unless_it_ended():
    feed = Feed(CPU=1)
    feed.submit("a", "b", "c")
    taken = feed.scheduler.take_out(lambda task: task.id != b"b")
    assert [task.id for task in taken] == [b"a", b"c"]
    feed.workers("w1")
    assert feed.plan() == {"w1": ["b"]}
    feed.finish("w1", "b")
    assert feed.plan() == {}
    feed.scheduler.withdraw(taken[1])
    assert taken[1].state == GONE
    feed.scheduler.submit(taken[0])
    assert feed.plan() == {"w1": ["a"]}
