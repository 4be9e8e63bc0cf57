"""What tasks start: when their worker dies the supervisor has it, reaps it, and kills it at the end of the session."""

import os
import signal
import subprocess
from contextlib import suppress

import psutil
import pytest
from waiting import is_gone, start_engine, wait_for

from rlflow import engine
from rlflow.engine import api

LONG = 1000


@pytest.fixture(autouse=True)
def started(no_leaks):
    start_engine()
    yield api.current_backend()
    engine.shutdown()


@engine.remote(max_retries=0)
def start_and_die(how, *command):
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    os.set_inheritable(child.stdin.fileno(), False)
    with open(how, "w") as file:
        file.write(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@engine.remote
class Starts:
    def start(self, *command):
        self.child = subprocess.Popen(command)
        return self.child.pid


def zombies(backend) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(backend.supervisor_pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def parent_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


def started_by_a_dead_worker(folder, *command) -> int:
    with pytest.raises(engine.exceptions.WorkerCrashedError):
        engine.get(start_and_die.remote(folder / command[0], *command))
    return int((folder / command[0]).read_text())


def test_those_that_end_are_reaped_at_once(started, tmp_path):
    """``cat`` ends when the worker does, which had the other end of its stdin."""
    pid = started_by_a_dead_worker(tmp_path, "cat")
    wait_for(lambda: not psutil.pid_exists(pid), "it is reaped")
    actor = Starts.remote()
    pid = engine.get(actor.start.remote("sleep", str(LONG)))
    engine.kill(actor)
    wait_for(lambda: parent_of(pid) == started.supervisor_pid, "it is the supervisor's")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid), "it is reaped")
    wait_for(lambda: not zombies(started), "nothing is left to be reaped")


def test_those_that_go_on_end_with_the_session(started, tmp_path):
    pid = started_by_a_dead_worker(tmp_path, "sleep", str(LONG))
    wait_for(lambda: parent_of(pid) == started.supervisor_pid, "it is the supervisor's")
    assert not is_gone(pid)
    engine.shutdown()
    assert not psutil.pid_exists(pid)
