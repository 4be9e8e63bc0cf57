"""Many tasks, calls, actors and functions leave nothing in any process (``benchmarks/endurance.py`` at length)."""

import psutil
import pytest
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.node.actors import DEAD, Actor, ActorTable

ROUND = 15_000
SLACK = 12e6
"""Bytes that a process may grow by over the second and third round: less than 1 kB for each of its tasks."""


@engine.remote
def nothing():
    return None


@engine.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=2)
    yield api.current_backend()
    engine.shutdown()


def memory() -> dict[int, int]:
    """Of each process, without what it shares: pages of the control store are the kernel's."""
    supervisor = psutil.Process(api.current_backend().supervisor_pid)
    found = {}
    for process in [psutil.Process(), *supervisor.children(recursive=True)]:
        info = process.memory_info()
        found[process.pid] = info.rss - info.shared
    return found


def get_them(call):
    engine.get([call() for _ in range(1000)])


def drop_them(call):
    for _ in range(1000):
        call()


@pytest.mark.parametrize("what", ["tasks", "dropped tasks", "calls", "dropped calls"])
def test_many_short_ones_leave_nothing(started, what):
    counter = Counter.remote() if "calls" in what else None
    call = nothing.remote if counter is None else counter.add.remote
    use = drop_them if "dropped" in what else get_them
    looks = []
    for _ in range(3):
        for _ in range(ROUND // 1000):
            use(call)
        wait_for(lambda: not (started.unfinished.tasks() or started.questions.census()["tasks"]), "all end")
        looks.append(memory())
    grown = {pid: looks[2][pid] - size for pid, size in looks[0].items() if pid in looks[2]}
    assert max(grown.values()) < SLACK, grown
    del counter, call
    wait_for(lambda: not any(started.questions.census().values()), "nothing is known of any of them")


def test_many_actors_leave_nothing(started):
    for _ in range(15):
        counter = Counter.remote()
        assert engine.get(counter.add.remote()) == 1
        del counter
    wait_for(
        lambda: not any(started.questions.census().values()) and not started.calls._callees, "all of them are forgotten"
    )


def test_a_dead_actor_is_forgotten_with_its_last_handle():
    table = ActorTable()
    actor = Actor(b"a", None, None, "driver", restarts_left=0)
    table._actors[actor.id] = actor
    actor.state = DEAD
    assert table.get(b"a") is actor and not table.is_living(b"a")
    table.remove(actor)
    assert table.get(b"a") is None


def test_a_function_per_task(started):
    for i in range(1100):
        assert engine.get(engine.remote(lambda i=i: i).remote()) == i
    assert engine.get(nothing.remote()) is None
