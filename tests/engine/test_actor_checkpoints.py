"""Checkpoints of recoverable actors: what is in them, what may go wrong while they are made, what they leave."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from crashing import die_at_first, note, noted
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from recovering import Ledger, actor_id, events, kill, replayed
from waiting import all_resources_free, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ActorDiedError
from rlflow.engine.testing import engine_processes


def files():
    folder = Path(api.current_backend().session.store) / "checkpoints"
    return sorted(path.name for path in folder.glob("*"))


class Mortal:
    def pid(self):
        return os.getpid()


def test_arrays_are_saved_and_can_be_written_to():
    @engine.remote(max_restarts=-1, checkpoint_every=2)
    class Weights(Mortal):
        def __init__(self, start):
            self.values = start.copy()

        def step(self, gradient):
            self.values += gradient
            return self.values.copy()

    start = np.arange(100_000.0)
    weights = Weights.remote(start)
    expected = start.copy()
    for i in range(5):
        gradient = np.full(100_000, float(i))
        expected += gradient
        assert np.array_equal(engine.get(weights.step.remote(gradient)), expected)
        kill(weights)


def test_own_ways_to_save_and_to_load(tmp_path):
    @engine.remote(max_restarts=-1, checkpoint_every=3)
    class Own(Mortal):
        def __init__(self, path):
            note(path)
            self.values = []
            self.handle = open(os.devnull)  # cannot be pickled  # noqa: SIM115

        def add(self, value):
            self.values.append(value)
            return len(self.values)

        def save_checkpoint(self):
            return {"values": self.values}

        def load_checkpoint(self, state):
            assert self.values == []
            self.values = state["values"]

    own = Own.remote(tmp_path / "inits")
    for i in range(7):
        assert engine.get(own.add.remote(i)) == i + 1
    kill(own)
    assert engine.get(own.add.remote(7)) == 8
    assert replayed(own) == [2]  # the seventh, and the question for the pid
    assert noted(tmp_path / "inits") == 2


def test_there_is_one_file_while_it_lives_and_none_afterwards():
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=2).remote()
    engine.get([ledger.add.remote(i) for i in range(10)])
    name = actor_id(ledger)
    wait_for(lambda: files() == [f"{name}-10"], "the older ones are removed")
    kill(ledger)
    engine.get([ledger.add.remote(i) for i in range(3)])
    wait_for(lambda: files() == [f"{name}-14"], "the older ones are removed")
    del ledger
    wait_for(lambda: all_resources_free() and files() == [], "the last one is removed")


def test_a_killed_actor_leaves_no_file():
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=1).remote()
    engine.get(ledger.add.remote(0))
    wait_for(lambda: len(files()) == 1, "it is saved")
    engine.kill(ledger)
    with pytest.raises(ActorDiedError):
        engine.get(ledger.all.remote())
    wait_for(lambda: files() == [], "the last one is removed")


def test_a_file_that_a_killed_actor_wrote_at_last_is_removed():
    """It is killed as it saves itself: the node, which removes its files, hears of its end later."""
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=1).remote()
    engine.get(ledger.add.remote(0))
    wait_for(lambda: len(files()) == 1, "it is saved")
    zygote = engine_processes().zygote  # who tells the node of the ends of workers
    os.kill(zygote, signal.SIGSTOP)
    try:
        engine.kill(ledger)
        with pytest.raises(ActorDiedError):
            engine.get(ledger.all.remote())
        wait_for(lambda: files() == [], "what was there is removed")
        (Path(api.current_backend().session.store) / "checkpoints" / f"{actor_id(ledger)}-2").touch()
    finally:
        os.kill(zygote, signal.SIGCONT)
    wait_for(lambda: files() == [], "the last one is removed")


class DeadlyToSave(Mortal):
    """Dies in the middle of its second checkpoint."""

    def __init__(self, path):
        self.path = path
        self.value = 0

    def add(self):
        self.value += 1
        return self.value

    def __getstate__(self):
        if self.value == 4:
            die_at_first(self.path, 1, "is_killed")
        return self.__dict__


def test_it_dies_while_it_is_saved(tmp_path):
    deadly = engine.remote(DeadlyToSave).options(max_restarts=-1, checkpoint_every=2).remote(tmp_path / "deaths")
    assert engine.get([deadly.add.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]
    kill(deadly)
    assert engine.get(deadly.add.remote()) == 6
    assert noted(tmp_path / "deaths") == 1
    assert replayed(deadly)[0] <= 2


def test_what_cannot_be_saved_is_replayed(caplog):
    @engine.remote(max_restarts=-1, checkpoint_every=2)
    class Unpicklable(Mortal):
        def __init__(self):
            self.values = []
            self.generator = (i for i in range(10))

        def next(self):
            self.values.append(next(self.generator))
            return list(self.values)

    unpicklable = Unpicklable.remote()
    for i in range(4):
        assert engine.get(unpicklable.next.remote()) == list(range(i + 1))
    kill(unpicklable)
    assert engine.get(unpicklable.next.remote()) == [0, 1, 2, 3, 4]
    assert replayed(unpicklable) == [5]
    assert "generator" in events("checkpoint failed", unpicklable)[0]
    assert "could not be saved" in caplog.text and "generator" in caplog.text


def test_a_checkpoint_that_cannot_be_loaded_is_the_death_of_the_actor():
    @engine.remote(max_restarts=-1, checkpoint_every=1)
    class Broken(Mortal):
        def add(self):
            return 1

        def save_checkpoint(self):
            return "state"

        def load_checkpoint(self, state):
            raise ValueError(f"no such {state}")

    broken = Broken.remote()
    assert engine.get(broken.add.remote()) == 1
    kill(broken)
    with pytest.raises(ActorDiedError, match=r"Broken.*could not be restored") as caught:
        engine.get(broken.add.remote())
    assert "no such state" in str(caught.value.__cause__)


def test_a_checkpoint_may_submit_tasks_and_put(tmp_path):
    @engine.remote
    def double(value):
        return 2 * value

    @engine.remote(max_restarts=-1, checkpoint_every=1)
    class Busy(Mortal):
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

        def save_checkpoint(self):
            return engine.put(self.value), double.remote(self.value), np.full(50_000, self.value)

        def load_checkpoint(self, state):
            value, doubled, array = state
            assert engine.get([value, doubled]) == [array[0], 2 * array[0]]
            self.value = int(array[0])

    busy = Busy.remote()
    for i in range(3):
        assert engine.get(busy.add.remote()) == i + 1
        kill(busy)
