"""The daemon is killed while an actor cannot answer, since C code keeps its interpreter's lock: others go on."""

import ctypes
import os
import signal

import pytest
from crashing import note, noted
from restarting import kill_daemon, nothing_is_left
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ActorUnavailableError
from rlflow.engine.store_reader import StoreReader


@pytest.fixture(autouse=True)
def engine_of_two():
    start_engine(resources={"slot": 1})
    try:
        yield
        wait_for(nothing_is_left, "nothing is left")
    finally:
        engine.shutdown()


def hold_the_lock(path):
    """Until somebody opens the pipe at ``path`` to write."""
    note(f"{path} reached")
    fd = ctypes.PyDLL(None).open(os.fsencode(path), os.O_RDONLY)
    os.close(fd)


def let_go(path):
    os.close(os.open(path, os.O_WRONLY))


@engine.remote
def noting(path):
    note(path)
    return os.path.basename(path)


class Deaf:
    def __init__(self, path=None):
        self.count = 0
        if path is not None:
            hold_the_lock(path)

    def add(self):
        self.count += 1
        return self.count

    def submits_and_holds(self, path, submitted):
        self.refs = [noting.options(resources={"slot": 1}).remote(submitted)]
        engine.wait(self.refs, timeout=0)  # which sends them
        self.count += 1
        hold_the_lock(path)
        return engine.get(self.refs), self.count

    def pid(self):
        return os.getpid()


@engine.remote
class Slot:
    def ready(self):
        return True


@pytest.fixture
def pipe(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    return path


@pytest.fixture(params=[{}, {"max_restarts": -1, "checkpoint_every": 2}], ids=["plain", "recoverable"])
def deaf(request):
    return engine.remote(**request.param)(Deaf) if request.param else engine.remote(Deaf)


def test_others_go_on_and_it_reports_later(deaf, pipe, tmp_path):
    slot = Slot.options(resources={"slot": 1}).remote()
    assert engine.get(slot.ready.remote())
    actor = deaf.remote()
    assert engine.get(actor.add.remote()) == 1
    held = actor.submits_and_holds.remote(pipe, tmp_path / "submitted")
    later = actor.add.remote()
    wait_for(lambda: noted(f"{pipe} reached"), "it is in C code")
    for _ in range(2):
        kill_daemon()
        assert engine.get(noting.remote(tmp_path / "other"), timeout=60) == "other"
        young = Slot.remote()
        assert engine.get(young.ready.remote(), timeout=60)
        assert engine.wait([held, later], timeout=0) == ([], [held, later])
    let_go(pipe)
    del slot, young
    assert engine.get([held, later], timeout=60) == [(["submitted"], 2), 3]
    assert noted(tmp_path / "submitted") == 1
    assert engine.get(actor.add.remote()) == 4


def test_one_that_is_being_made(deaf, pipe, tmp_path):
    actor = deaf.remote(pipe)
    first = actor.add.remote()
    wait_for(lambda: noted(f"{pipe} reached"), "its __init__ is in C code")
    kill_daemon()
    assert engine.get(noting.remote(tmp_path / "other"), timeout=60) == "other"
    let_go(pipe)
    assert engine.get(first, timeout=60) == 1
    assert noted(f"{pipe} reached") == 1


def test_one_that_dies_before_it_can_report(pipe, tmp_path):
    """What it had submitted is run, though nobody but the control store knows of it."""
    slot = Slot.options(resources={"slot": 1}).remote()
    assert engine.get(slot.ready.remote())
    actor = engine.remote(Deaf).options(max_restarts=1).remote()
    pid = engine.get(actor.pid.remote())
    held = actor.submits_and_holds.remote(pipe, tmp_path / "submitted")
    wait_for(lambda: noted(f"{pipe} reached"), "it is in C code")
    wait_for(lambda: "noting" in recorded(), "the node has its task")
    kill_daemon()
    assert engine.get(noting.remote(tmp_path / "other"), timeout=60) == "other"
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorUnavailableError):
        engine.get(held, timeout=60)
    assert engine.get(actor.pid.remote(), timeout=60) != pid
    del slot
    wait_for(lambda: noted(tmp_path / "submitted") == 1, "its task is run")


def recorded():
    """Names of the functions of all tasks in the control store."""
    with StoreReader(api.current_backend().session.store) as store:
        return {task.function for task in store.tasks()}
