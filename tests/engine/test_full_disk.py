"""When the control store cannot be written: a warning, nothing lost, and all goes on once there is room."""

import logging
import os
import resource
from pathlib import Path

import psutil
import pytest
from waiting import daemon_and_zygote, start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.control_store import StoreReader

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


class Disk:
    """The disk as the daemon sees it: full when it may not make files larger than they are."""

    def __init__(self) -> None:
        self.daemon, _ = daemon_and_zygote(api.current_backend().supervisor_pid)
        self._store = Path(api.current_backend().session.store) / "data.mdb"

    def fill(self) -> None:
        resource.prlimit(self.daemon, resource.RLIMIT_FSIZE, (os.stat(self._store).st_size, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.prlimit(self.daemon, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def disk(no_leaks):
    start_engine(num_cpus=2)
    yield Disk()
    engine.shutdown()


def warnings(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_tasks_wait_for_room_and_none_is_lost(disk, caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    counter = Counter.remote()
    assert engine.get(counter.add.remote()) == 1
    disk.fill()
    refs = [length.remote(PAYLOAD) for _ in range(3000)]
    wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
    (warning,) = warnings(caplog, "cannot be written")
    assert "control store" in warning and "MB are free" in warning and "nothing is lost" in warning
    assert engine.get(counter.add.remote()) == 2  # calls go straight to the actor
    assert engine.wait(refs, num_returns=len(refs), timeout=0.05)[1]
    assert psutil.Process(disk.daemon).is_running()
    disk.free()
    assert engine.get(refs) == [len(PAYLOAD)] * len(refs)
    wait_for(lambda: warnings(caplog, "written again"), "the all-clear")
    with StoreReader(api.current_backend().session.store) as reader:
        wait_for(lambda: sum(task.outcome == "finished" for task in reader.tasks()) == 3002 + 1, "all is recorded")


def test_a_worker_that_dies_meanwhile(disk, caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    disk.fill()
    refs = [length.remote(PAYLOAD) for _ in range(3000)]
    wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
    supervisor = psutil.Process(api.current_backend().supervisor_pid)
    for process in supervisor.children(recursive=True):
        if process.ppid() not in (supervisor.pid, os.getpid()):
            process.kill()
    disk.free()
    assert engine.get(refs) == [len(PAYLOAD)] * len(refs)


def test_the_engine_can_be_stopped_while_the_disk_is_full(disk, caplog):
    caplog.set_level(logging.WARNING, "rlflow.engine")
    disk.fill()
    refs = [length.remote(PAYLOAD) for _ in range(3000)]
    wait_for(lambda: warnings(caplog, "cannot be written"), "a warning")
    del refs
    engine.shutdown()
