"""Cases of docs/reliability.md that belong to no other file."""

from pathlib import Path

import numpy as np
import pytest
from waiting import start_engine

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.exceptions import GetTimeoutError, ObjectStoreFullError
from rlflow.engine.testing import delay, inject, kill_at_message


@engine.remote
def square(n):
    return n * n


@pytest.fixture(autouse=True)
def stopped(no_leaks):
    yield
    engine.shutdown()


def test_workers_that_start_late_get_their_tasks():
    with inject(delay(m.Hello, 0.5, sender="w*", times=2)) as faults:
        engine.init(num_cpus=2)
        assert engine.get([square.remote(n) for n in range(20)]) == [n * n for n in range(20)]
        assert faults.happened() == [2]


def test_workers_that_die_as_they_start_are_replaced():
    with inject(kill_at_message(m.Hello, sender="w*", times=3)) as faults:
        engine.init(num_cpus=2)
        assert engine.get([square.options(max_retries=0).remote(n) for n in range(20)]) == [n * n for n in range(20)]
        assert faults.happened() == [3]


def test_an_actor_that_waits_for_itself_goes_on_after_the_time_out():
    @engine.remote
    class Selfish:
        def ask(self, itself):
            try:
                return engine.get(itself.answer.remote(), timeout=0.2)
            except GetTimeoutError:
                return "nobody answered"

        def answer(self):
            return "an answer"

    start_engine()
    selfish = Selfish.remote()
    assert engine.get(selfish.ask.remote(selfish)) == "nobody answered"
    assert engine.get(selfish.answer.remote()) == "an answer"


def test_an_actor_whose_result_finds_no_room_lives_on():
    @engine.remote
    class Maker:
        def __init__(self):
            self.calls = 0

        def make(self, size):
            self.calls += 1
            return np.full(size, self.calls)

    start_engine(object_store_memory=4_000_000)
    maker = Maker.remote()
    disk = Path(api.current_backend().session.spill)
    disk.rename(disk.with_name("elsewhere"))
    with pytest.raises(ObjectStoreFullError, match="object_store_memory"):
        engine.get(maker.make.remote(1_000_000))
    disk.with_name("elsewhere").rename(disk)
    assert np.array_equal(engine.get(maker.make.remote(1_000_000)), np.full(1_000_000, 2))
