"""What only the engine in this process does: run at submit, free at once, let the terminal through."""

import bdb
import gc
import sys
import threading
import time

import numpy as np
import pytest

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import TaskUnschedulableError
from rlflow.engine.testing import lose


@engine.remote
def identity(value):
    return value


@engine.remote
class Holder:
    def __init__(self, value=None):
        self.value = value

    def get(self):
        return self.value

    def kill_me(self, handle):
        engine.kill(handle)
        return "too late"

    def restart_me(self, handle):
        engine.kill(handle, no_restart=False)
        return "too late"

    def call_me(self, handle):
        return engine.get(handle.get.remote())


@pytest.fixture(autouse=True)
def inline():
    engine.init(backend="inline", num_cpus=1)
    yield
    engine.shutdown()


def counted():
    gc.collect()
    return len(api.current_backend().objects)


def test_a_task_runs_at_its_submit():
    ran = threading.current_thread().name
    seen = []
    sys.modules[__name__].where_it_runs = seen

    @engine.remote
    def note():
        sys.modules[__name__].where_it_runs.append(threading.current_thread().name)

    ref = note.remote()
    assert seen == [ran]
    assert engine.get(ref) is None


def test_nothing_is_kept_without_a_ref():
    assert counted() == 0
    ref = engine.put(np.zeros(1000))
    box = engine.put([ref, identity.remote(1)])
    assert counted() == 3
    del ref
    assert counted() == 3
    del box
    assert counted() == 0
    for i in range(100):
        engine.get(identity.remote([engine.put(i)]))
    assert counted() == 0


def test_a_long_chain_of_objects_is_freed_without_recursion():
    ref = engine.put(0)
    for _ in range(20_000):
        ref = engine.put([ref])
    assert counted() == 20_001
    del ref
    assert counted() == 0


def test_freed_actors_and_their_objects():
    ended = []
    sys.modules[__name__].ended = ended

    class Mortal:
        def __del__(self):
            sys.modules["test_inline"].ended.append(engine.get(engine.put("finalizers may use the engine")))

        def ping(self):
            return 1

    mortal = engine.remote(Mortal).remote()
    assert engine.get(mortal.ping.remote()) == 1
    holder = Holder.remote([mortal])
    del mortal
    gc.collect()
    assert ended == []
    del holder
    gc.collect()
    assert ended == ["finalizers may use the engine"]
    assert counted() == 0


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, bdb.BdbQuit])
def test_who_sits_at_the_terminal_stops_the_program_and_not_the_task(interrupt):
    @engine.remote
    def interrupted():
        raise interrupt

    @engine.remote
    def outer():
        return engine.get(interrupted.remote())

    with pytest.raises(interrupt):
        outer.remote()
    assert engine.get_runtime_context().role == "driver"
    assert engine.get(identity.remote("usable as before")) == "usable as before"

    @engine.remote
    class Interrupted:
        def __init__(self):
            raise interrupt

    with pytest.raises(interrupt):
        Interrupted.options(name="interrupted").remote()
    with pytest.raises(ValueError, match="no actor"):
        engine.get_actor("interrupted")
    gc.collect()


def test_waiting_for_what_can_never_be_says_so_at_once():
    ref = identity.options(num_cpus=2).remote(1)
    assert engine.wait([ref], timeout=0) == ([], [ref])
    with pytest.raises(TaskUnschedulableError, match=r"identity can never run.*'CPU': 2.*'CPU': 1"):
        engine.get(ref)
    with pytest.raises(TaskUnschedulableError):
        engine.wait([ref])
    with pytest.raises(TaskUnschedulableError):
        ref.future().result()
    holder = Holder.options(num_gpus=1).remote()
    with pytest.raises(TaskUnschedulableError, match=r"Holder can never run.*GPU"):
        engine.get(holder.get.remote())
    with pytest.raises(TaskUnschedulableError):
        engine.get(Holder.remote(ref).get.remote())


def test_an_actor_that_kills_itself_returns_nothing():
    holder = Holder.remote(1)
    with pytest.raises(engine.exceptions.ActorDiedError, match="kill"):
        engine.get(holder.kill_me.remote(holder))
    with pytest.raises(engine.exceptions.ActorDiedError):
        engine.get(holder.get.remote())


def test_an_actor_that_restarts_itself_loses_that_call_only():
    holder = Holder.options(max_restarts=1).remote(5)
    with pytest.raises(engine.exceptions.ActorDiedError, match="restarted"):
        engine.get(holder.restart_me.remote(holder))
    assert engine.get(holder.get.remote()) == 5


def test_an_actor_that_waits_for_itself_gets_its_answer():
    holder = Holder.remote(3)
    assert engine.get(holder.call_me.remote(holder)) == 3


def test_an_actor_serves_one_thread_at_a_time():
    @engine.remote
    class Room:
        def __init__(self):
            self.inside = self.most = 0

        def visit(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            for _ in range(20):
                time.sleep(0)  # lets another thread in, if nothing keeps it out
            self.inside -= 1

        def most_at_once(self):
            return self.most

    def visit_often():
        for _ in range(20):
            room.visit.remote()

    room = Room.remote()
    threads = [threading.Thread(target=visit_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.get(room.most_at_once.remote()) == 1


def test_refs_may_die_in_any_thread():
    refs = [[engine.put(i) for i in range(500)] for _ in range(4)]
    threads = [threading.Thread(target=batch.clear) for batch in refs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted() == 0


def test_there_is_no_memory_to_lose():
    with pytest.raises(ValueError, match="no memory of its own"):
        lose(engine.put(np.ones(10_000)))
