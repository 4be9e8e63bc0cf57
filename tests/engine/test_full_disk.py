"""When the control store cannot be written: a warning, nothing lost, and all goes on once there is room."""

import logging
import os
import signal

import pytest
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes, full_disk

PAYLOAD = "x" * 500


@engine.remote
def length(text):
    return len(text)


@engine.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


@pytest.fixture(autouse=True)
def started(no_leaks):
    start_engine(num_cpus=2)
    yield
    engine.shutdown()


def warnings(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_tasks_wait_for_room_and_none_is_lost(caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    counter = Counter.remote()
    assert engine.get(counter.add.remote()) == 1
    daemon = engine_processes().daemon
    with full_disk():
        refs = [length.remote(PAYLOAD) for _ in range(3000)]
        wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
        (warning,) = warnings(caplog, "cannot be written")
        assert "control store" in warning and "MB are free" in warning and "nothing is lost" in warning
        assert engine.get(counter.add.remote()) == 2  # calls go straight to the actor
        assert engine.wait(refs, num_returns=len(refs), timeout=0.05)[1]
        assert engine_processes().daemon == daemon
    assert engine.get(refs) == [len(PAYLOAD)] * len(refs)
    wait_for(lambda: warnings(caplog, "written again"), "the all-clear")
    with StoreReader(api.current_backend().session.store) as reader:
        wait_for(lambda: sum(task.outcome == "finished" for task in reader.tasks()) == 3002 + 1, "all is recorded")


def test_a_worker_that_dies_meanwhile(caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    with full_disk():
        refs = [length.remote(PAYLOAD) for _ in range(3000)]
        wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
        for worker in engine_processes().workers:
            os.kill(worker, signal.SIGKILL)
    assert engine.get(refs) == [len(PAYLOAD)] * len(refs)


def test_the_engine_can_be_stopped_while_the_disk_is_full(caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    with full_disk():
        refs = [length.remote(PAYLOAD) for _ in range(3000)]
        wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
        del refs
        engine.shutdown()
