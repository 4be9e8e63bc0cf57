"""What actors, functions, processes and requests that come and go leave in the tables of those that stay: nothing.

Memory would tell of it after hundreds of thousands (``test_flat_memory.py``); entries can be counted after a few dozen.
"""

import os

import numpy as np
import pytest
from scheduling import Feed
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api, control_store
from rlflow.engine.departed import Departed
from rlflow.engine.ids import new_scope
from rlflow.engine.node import scheduler
from rlflow.engine.runtime import process, recipes
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes, node_table_sizes, table_sizes

ROUNDS = 20
FEW = 6
"""Less than one entry for each third round."""

BOUNDED = (
    "_functions", "scheduler._averages", "scheduler._shapes", "functions._sent", "functions._senders",
    "storage._endpoint.unacknowledged", "storage._endpoint.out._mail._kept", "recipes._of_tasks", "recipes._of_calls",
)
"""Tables that forget what is old only when they have many entries, each with a test below or of its own."""


@engine.remote
class Short:
    def one(self):
        return engine.get(one.remote())

    def large(self):
        return engine.put(np.zeros(10_000)), np.zeros(10_000)


@engine.remote
class Long:
    def hit(self):
        return 1


@engine.remote
def one():
    return 1


@engine.remote(max_calls=1)
def calls(actor):
    """In a process of its own."""
    return engine.get(actor.hit.remote())


@engine.remote
def own_tables():
    return table_sizes(api.current_backend())


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=2)
    yield api.current_backend()
    engine.shutdown()


def tables(backend):
    wait_for(lambda: backend.questions.census()["known actors"] == 1, "the actors are forgotten")
    wait_for(lambda: len(engine_processes().workers) <= FEW, "workers that leave are gone")
    found = {"driver": table_sizes(backend), "node": node_table_sizes(), "worker": engine.get(own_tables.remote())}
    return {f"{name}: {path}": size for name, sizes in found.items() for path, size in sizes.items()}


def round_of_everything(number, long):
    short = Short.remote()
    assert engine.get(short.one.remote()) == 1
    inner, array = engine.get(short.large.remote())
    assert engine.get(inner).size == array.size
    if number % 3 == 0:
        engine.kill(short)
    assert engine.get(engine.remote(lambda number=number: number).remote()) == number
    assert engine.get(one.options(memory=1_000_000 + number).remote()) == 1
    assert engine.get(calls.remote(long)) == 1


def test_what_comes_and_goes_leaves_no_entries(started):
    long = Long.remote()
    for number in range(6):
        round_of_everything(number, long)
    before = tables(started)
    for number in range(6, 6 + ROUNDS):
        round_of_everything(number, long)
    grown = {
        path: (before.get(path, 0), size) for path, size in tables(started).items()
        if size > before.get(path, 0) + FEW and not path.partition(": ")[2].startswith(BOUNDED)
    }
    assert not grown
    folder = os.listdir(started.session.folder)
    assert sum(name.endswith((".sock", ".lane")) for name in folder) < 2 * 10


def test_recipes_are_forgotten_when_there_are_many(started, monkeypatch):
    monkeypatch.setattr(recipes, "REMEMBERED", 3)
    for number in range(8):
        assert engine.get(engine.remote(lambda number=number: number).remote()) == number
        assert engine.get(Short.remote().one.remote()) == 1
    sizes = table_sizes(started)
    assert 0 < sizes["recipes._of_tasks"] <= 3 and 0 < sizes["recipes._of_calls"] <= 3


def test_a_function_that_was_forgotten_is_sent_again(started, monkeypatch):
    monkeypatch.setattr(process, "SENT_REMEMBERED", 3)
    functions = [engine.remote(lambda i=i: i) for i in range(8)]
    for _ in range(2):
        assert engine.get([function.remote() for function in functions]) == list(range(8))
    assert len(started._functions) == 3


def test_shapes_that_nobody_asks_for_are_forgotten(monkeypatch):
    monkeypatch.setattr(scheduler, "SHAPES", 4)
    feed = Feed(CPU=2, memory=1000)
    feed.scheduler._most_shapes = 4
    feed.workers("w1", "w2")
    feed.submit("runs", memory=900)
    assert list(feed.plan().values()) == [["runs"]]
    for amount in range(1, 100):
        feed.submit(f"t{amount}", memory=amount)
        (worker,) = feed.plan()
        feed.finish(worker, f"t{amount}")
    assert len(feed.scheduler._shapes) <= 4
    assert feed.scheduler.free["memory"] == 100


def test_the_audit_log_keeps_the_last_events(tmp_path, monkeypatch):
    monkeypatch.setattr(control_store, "MAX_EVENTS", 10)
    for _ in range(2):
        store = control_store.ControlStore(tmp_path)
        for i in range(20):
            store.add_event("died", f"w{i}")
            store.commit()
        store.close()
    with StoreReader(tmp_path) as reader:
        assert [event.subject for event in reader.events()] == [f"w{i}" for i in range(10, 20)]


# ---------------------------------------------------------------- names of the dead


def test_any_number_of_names_makes_few_runs():
    numbers = np.random.default_rng(0).permutation(np.arange(1, 2001))
    living = {3, 700, 701, 2000}
    departed = Departed()
    for number in numbers:
        if number not in living:
            departed.add(f"w{number}")
            departed.add(f"w{number}")
    assert departed._bounds == [1, 3, 4, 700, 702, 2000]
    for number in range(2003):
        assert (f"w{number}" in departed) == (f"w{number}".encode() in departed) == (
            0 < number < 2000 and number not in living
        )
    assert Departed.all_of(2000, but=[f"w{number}" for number in living])._bounds == departed._bounds


def test_names_of_other_forms():
    departed = Departed()
    departed.add("w1")
    assert new_scope() not in departed and b"" not in departed and "driver" not in departed and b"w" not in departed
    departed.add("driver")
    assert "driver" in departed and b"driver" in departed and b"\xff\xfe" not in departed
