"""The node daemon is killed and started anew: tasks finish once, actors serve on, objects live on, nothing is left."""

import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from restarting import kill_daemon, nothing_is_left, supervisor, there_is_a_daemon, without_daemon
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ActorDiedError, EngineStateError, WorkerCrashedError
from rlflow.engine.testing import lose

CHAOS_SECONDS = 4.0


@pytest.fixture(autouse=True)
def engine_of_two():
    start_engine()
    try:
        yield
        if not api.current_backend().failure:
            wait_for(nothing_is_left, "nothing is left")
    finally:
        engine.shutdown()  # whatever happened: the next test starts an engine of its own


@engine.remote
def note(folder, name, go=None):
    """Leaves a line in a file for each time that it runs; waits for the file ``go``."""
    with open(f"{folder}/{name}", "a") as file:
        file.write("ran\n")
    while go is not None and not os.path.exists(go):
        time.sleep(0.01)
    return name


@engine.remote
def identity(value):
    return value


@engine.remote
def ones(size):
    return np.ones(size)


@engine.remote
class Counter:
    def __init__(self, start=0, go=None):
        while go is not None and not os.path.exists(go):
            time.sleep(0.01)
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value

    def pid(self):
        return os.getpid()


def runs(folder, name):
    path = folder / str(name)
    return len(path.read_text().split()) if path.exists() else 0


def test_queued_and_running_tasks_finish_once(tmp_path):
    go = tmp_path / "go"
    refs = [note.remote(tmp_path, i, go) for i in range(6)]
    wait_for(lambda: sum(runs(tmp_path, i) for i in range(6)) == 2, "two tasks run")
    for _ in range(3):
        kill_daemon()
        assert engine.get(identity.options(num_cpus=0).remote(1)) == 1  # the next one is there
    go.touch()
    assert engine.get(refs) == list(range(6))
    assert [runs(tmp_path, i) for i in range(6)] == [1] * 6


def test_tasks_that_are_submitted_and_finish_meanwhile(tmp_path):
    go = tmp_path / "go"
    running = [note.remote(tmp_path, i, go) for i in range(2)]
    wait_for(lambda: runs(tmp_path, 0) + runs(tmp_path, 1) == 2, "they run")
    with without_daemon():
        go.touch()
        assert engine.get(running) == [0, 1]  # results go straight to their owner
        dependent = identity.remote(running[0])
        others = [note.remote(tmp_path, i) for i in range(2, 200)]
    assert engine.get(dependent) == 0
    assert engine.get(others) == list(range(2, 200))
    assert [runs(tmp_path, i) for i in range(200)] == [1] * 200


def test_blocked_tasks_and_those_they_wait_for(tmp_path):
    @engine.remote
    def tree(depth):
        if depth == 0:
            return engine.get(note.remote(tmp_path, "leaf", tmp_path / "go"))
        return engine.get(tree.remote(depth - 1))

    ref = tree.remote(4)
    wait_for(lambda: runs(tmp_path, "leaf") == 1, "the innermost task runs")
    kill_daemon()
    assert engine.get(identity.remote("there")) == "there"  # all CPUs were given back
    (tmp_path / "go").touch()
    assert engine.get(ref) == "leaf"
    assert runs(tmp_path, "leaf") == 1


def test_what_waits_for_other_results(tmp_path):
    """Arguments that are pending, a borrower that asked for a value, wait()."""
    @engine.remote
    def borrower(refs):
        return engine.get(refs[0])

    slow = note.remote(tmp_path, "slow", tmp_path / "go")
    pending = identity.remote(slow)
    borrowed = borrower.remote([slow])
    wait_for(lambda: runs(tmp_path, "slow") == 1, "it runs")
    kill_daemon()
    assert engine.wait([pending, borrowed], timeout=0.1) == ([], [pending, borrowed])
    (tmp_path / "go").touch()
    assert engine.get([slow, pending, borrowed]) == ["slow"] * 3


def test_objects_live_on():
    @engine.remote
    def total(refs):
        return sum(float(engine.get(ref).sum()) for ref in refs)

    large, put, inner = ones.remote(100_000), engine.put(np.ones(50_000)), [identity.remote(2)]
    outer = engine.put(inner)
    engine.wait([large])
    kill_daemon()
    assert engine.get(total.remote([large, put])) == 150_000
    assert engine.get(engine.get(outer)[0]) == 2
    del inner
    kill_daemon()
    assert engine.get(engine.get(outer)[0]) == 2
    held = Holder.remote()
    engine.get(held.keep.remote([large, put]))
    del large, put, outer
    kill_daemon()
    assert engine.get(held.total.remote()) == 150_000


@engine.remote
class Holder:
    def keep(self, refs):
        self.refs = refs

    def total(self):
        return sum(float(engine.get(ref).sum()) for ref in self.refs)


def test_actors_serve_on_and_new_ones_wait():
    counter = Counter.remote()
    assert engine.get(counter.add.remote()) == 1
    with without_daemon():
        assert [engine.get(counter.add.remote()) for _ in range(100)] == list(range(2, 102))
        young = Counter.remote(10)
        first = young.add.remote()
        assert engine.wait([first], timeout=0.1) == ([], [first])
    assert engine.get(first) == 11
    assert engine.get(counter.add.remote()) == 102
    held = counter.add.remote(0)
    assert engine.get(identity.remote(held)) == 102  # the node hears of calls again


def test_named_actors_are_found_again():
    counter = Counter.options(name="counter").remote(5)
    assert engine.get(counter.add.remote()) == 6
    kill_daemon()
    assert engine.get(engine.get_actor("counter").add.remote()) == 7
    with pytest.raises(ValueError, match="taken"):
        Counter.options(name="counter").remote()
    with without_daemon():
        threading.Timer(0.1, os.kill, (daemon_zygote_pid(), signal.SIGCONT)).start()
        assert engine.get(engine.get_actor("counter").add.remote()) == 8  # asked while there was nobody to answer


def daemon_zygote_pid():
    """The zygote's, also while there is no daemon."""
    import psutil

    parent = psutil.Process(supervisor())

    def stopped():
        return [child.pid for child in parent.children() if child.status() == psutil.STATUS_STOPPED]

    wait_for(stopped, "the zygote has heard that it is to stop")
    return stopped()[0]


def test_restart_during_the_creation_of_an_actor(tmp_path):
    counter = Counter.remote(1, tmp_path / "go")
    call = counter.add.remote()
    wait_for(lambda: engine.available_resources().get("CPU") is not None, "it was asked for")
    kill_daemon()
    with without_daemon():
        (tmp_path / "go").touch()  # its __init__ ends while there is nobody to hear of it
    assert engine.get(call) == 2
    kill_daemon()
    assert engine.get(counter.add.remote()) == 3


def test_an_actor_that_dies_while_the_daemon_is_down():
    mortal, phoenix = Counter.remote(), Counter.options(max_restarts=1).remote()
    pids = engine.get([mortal.pid.remote(), phoenix.pid.remote()])
    with without_daemon():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        engine.get(mortal.add.remote())
    assert engine.get(phoenix.pid.remote()) not in pids
    os.kill(engine.get(phoenix.pid.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError):  # the restart counted
        while True:
            engine.get(phoenix.add.remote())


def test_a_worker_that_dies_while_the_daemon_is_down(tmp_path):
    @engine.remote
    def its_pid(name):
        with open(tmp_path / name, "a") as file:
            file.write(f"{os.getpid()}\n")
        while not os.path.exists(tmp_path / "go"):
            time.sleep(0.01)
        return name

    again, never = its_pid.remote("again"), its_pid.options(max_retries=0).remote("never")
    wait_for(lambda: runs(tmp_path, "again") and runs(tmp_path, "never"), "both run")
    with without_daemon():
        for name in ("again", "never"):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)
        (tmp_path / "go").touch()
    assert engine.get(again) == "again"
    assert runs(tmp_path, "again") == 2
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        engine.get(never)


def test_a_daemon_that_dies_again_and_again_ends_the_session(tmp_path):
    ref = note.remote(tmp_path, "endless", tmp_path / "never")
    with pytest.raises(EngineStateError, match=r"(?s)ended with -9.*times within"):
        while True:
            kill_daemon()
            wait_for(lambda: api.current_backend().failure or there_is_a_daemon(), "the next one comes")
            if api.current_backend().failure:
                engine.get(ref)


def test_under_load():
    """The daemon is killed at any moment of a mixed load: every result is right, and nothing is left."""
    @engine.remote
    def total(array):
        return int(array.sum())

    @engine.remote
    def tree(depth):
        return 1 if depth == 0 else sum(engine.get([tree.remote(depth - 1) for _ in range(2)]))

    rng = random.Random(7)
    ends = threading.Event()
    kills = []

    def kill():
        while not ends.wait(rng.uniform(0.6, 1.4)):
            if there_is_a_daemon():
                kill_daemon()
                kills.append(time.monotonic())

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        counter = Counter.remote()
        calls = 0
        until = time.monotonic() + CHAOS_SECONDS
        while time.monotonic() < until or len(kills) < 3:
            values = [identity.remote(n) for n in range(300)]
            totals = [total.remote(ones.remote(20_000)) for _ in range(4)]
            count = tree.remote(3)
            passing = Counter.remote().add.remote(5)
            for _ in range(20):
                calls += 1
                assert engine.get(counter.add.remote(), timeout=60) == calls
            assert engine.get(values, timeout=60) == list(range(300))
            assert engine.get(totals, timeout=60) == [20_000] * 4
            assert engine.get(count, timeout=60) == 8
            assert engine.get(passing, timeout=60) == 5
    finally:
        ends.set()
        thread.join()
    assert len(kills) >= 3


def test_what_was_lost_is_made_again_while_the_daemon_is_killed(tmp_path):
    """Before the loss is noticed, and while a task is run again for it; lineage and copies are known afterwards."""

    @engine.remote
    def slow_again(go):
        note_line(tmp_path / "slow")
        while (tmp_path / "slow").read_text().count("\n") > 1 and not os.path.exists(go):
            time.sleep(0.01)
        return np.ones(10_000)

    @engine.remote
    def plus_one(array):
        note_line(tmp_path / "plus")
        return array + 1

    @engine.remote
    def put_ones():
        return [engine.put(np.ones(10_000))]

    ref = ones.remote(10_000)
    for _ in range(100):
        ref = plus_one.remote(ref)
    short = plus_one.remote(slow_again.remote(tmp_path / "go"))
    (put,) = engine.get(put_ones.remote())
    engine.wait([ref, short, put], num_returns=3)
    (tmp_path / "plus").unlink()
    kill_daemon()
    lose([ref, short, put])
    assert engine.get(put).sum() == 10_000
    assert engine.get(ref)[0] == 101
    assert (tmp_path / "plus").read_text().count("\n") <= 64
    future = short.future()
    wait_for(lambda: (tmp_path / "slow").read_text().count("\n") == 2, "it is run again")
    kill_daemon()
    (tmp_path / "go").touch()
    assert future.result(timeout=40)[0] == 2


def note_line(path):
    with open(path, "a") as file:
        file.write("ran\n")


def test_the_worker_of_a_task_whose_argument_was_pending_dies_meanwhile(tmp_path):
    """The new node has the task of somebody who cannot report it: what the last one had found is found again."""

    @engine.remote
    def length(text, go):
        (tmp_path / "pid").write_text(str(os.getpid()))
        while not os.path.exists(go):
            time.sleep(0.01)
        return len(text)

    ref = length.remote(note.remote(tmp_path, "producer"), tmp_path / "go")
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs")
    with without_daemon():
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    (tmp_path / "go").touch()
    assert engine.get(ref) == len("producer")
