"""Guarantees of the protocol that tests of features do not reach; docs/architecture.md lists all, with their tests."""

import os
import threading
from contextlib import suppress

import numpy as np
import psutil
import pytest
from waiting import DEADLINE, daemon_and_zygote, start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import delay, inject


@pytest.fixture(autouse=True)
def stopped(no_leaks):
    yield
    engine.shutdown()


@engine.remote
class Keeper:
    def __init__(self):
        self.kept = None

    def keep(self, refs):
        self.kept = refs

    def total(self):
        return float(engine.get(self.kept[0]).sum())


@engine.remote
class Slow:
    def __init__(self, path):
        path.touch()
        threading.Event().wait()


@pytest.mark.parametrize("kind", [m.Hold, m.Release])
def test_3_a_release_and_a_borrow_in_any_order(kind):
    """The driver lends what it drops at once; each of the messages may come long after all others."""
    with inject(delay(kind, 0.2, times=5)) as faults:
        start_engine()
        keeper = Keeper.remote()
        for n in range(5):
            array = engine.put(np.full(50_000, n, dtype=np.float64))
            done = keeper.keep.remote([array])
            engine.get(done)
            del array, done
            engine.put(np.full(50_000, -1.0))  # takes the memory, if it was given back
            assert engine.get(keeper.total.remote(), timeout=DEADLINE) == 50_000 * n
        assert faults.happened()[0]
        del keeper


def test_4_refs_are_dropped_while_the_owners_locks_are_held():
    start_engine()
    backend = api.current_backend()
    refs = [engine.put(n) for n in range(3)]
    dropper = threading.Thread(target=refs.clear)
    with backend.objects.lock, backend.calls._lock:
        dropper.start()
        dropper.join(DEADLINE)
        assert not dropper.is_alive(), "__del__ waits for a lock"


def test_7_the_zygote_has_one_thread_no_sockets_and_no_store():
    start_engine()
    _, zygote = daemon_and_zygote(api.current_backend().supervisor_pid)
    assert psutil.Process(zygote).num_threads() == 1
    folder = f"/proc/{zygote}/fd"
    opened = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed in this moment
            opened.append(os.readlink(f"{folder}/{name}"))
    assert not [target for target in opened if "epoll" in target or "eventfd" in target or target.endswith(".mdb")]


def test_an_actor_that_was_killed_as_it_started_has_not_crashed(tmp_path):
    start_engine()
    actor = Slow.remote(tmp_path / "begun")
    wait_for((tmp_path / "begun").exists, "it starts")
    engine.kill(actor)
    with StoreReader(api.current_backend().session.store) as reader:
        wait_for(lambda: [task.outcome for task in reader.tasks()] == ["cancelled"], "its creation is recorded")
