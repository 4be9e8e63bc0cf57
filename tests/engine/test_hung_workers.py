"""Workers that hang are reported with their stacks and left alone; what they run can be ended by force."""

import asyncio
import os
import re
import signal
import time

import pytest
from drivers import Driver
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import TaskCancelledError, WorkerCrashedError
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes, leak_check


@pytest.fixture(scope="module", autouse=True)
def no_leaks():
    """One check for all tests of the file, since they share an engine, which has little patience."""
    with leak_check(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLFLOW_SILENCE_SECONDS", "0.5")
        start_engine()
        yield
        engine.shutdown()


@engine.remote
def match_for_ever(path):
    """In C code that keeps the interpreter's lock."""
    path.touch()
    return re.match(r"(a+)+$", "a" * 60 + "b")


@engine.remote
def until(path):
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.005)
    return os.getpid()


@engine.remote
class Loop:
    def pid(self):
        return os.getpid()

    async def block_the_loop(self, path):
        while not path.exists():
            time.sleep(0.005)
        await asyncio.sleep(0)


def test_a_task_that_keeps_the_interpreters_lock(caplog, tmp_path):
    ref = match_for_ever.remote(tmp_path / "begun")
    wait_for((tmp_path / "begun").exists, "the task begins")
    wait_for(lambda: "in match_for_ever" in caplog.text, "it is reported with its stack")
    assert re.search(
        r"worker w\d+ \(pid \d+, R \(running\)\), which runs task match_for_ever \(\S+\), has not answered for [\d.]+ s"
        r"; it may be in C code .*\. It is left alone; .* ends it\. Its stacks:\n",
        caplog.text,
    )
    assert re.search(r"; w\d+ does not answer$", str(engine.why(ref)))
    engine.cancel(ref, force=True)  # no Python can end it there
    with pytest.raises(TaskCancelledError):
        engine.get(ref)
    assert caplog.text.count("has not answered") == 1


def test_a_process_that_is_stopped(caplog, tmp_path):
    ref = until.remote(tmp_path / "go")
    wait_for((tmp_path / "go.begun").exists, "the task begins")
    where = re.search(r"runs on (w\d+) \(pid (\d+)\)", str(engine.why(ref)))
    os.kill(int(where[2]), signal.SIGSTOP)
    wait_for(lambda: re.search(r"T \(stopped\)\), which runs .* has not answered", caplog.text), "it is reported")
    os.kill(int(where[2]), signal.SIGCONT)
    wait_for(lambda: f"worker {where[1]} answers again" in caplog.text, "it is heard again")
    (tmp_path / "go").touch()
    assert engine.get(ref) == int(where[2])


def test_a_task_far_beyond_its_usual_time(caplog, tmp_path):
    @engine.remote
    def usually_quick(path):
        while not path.exists():
            time.sleep(0.005)
        return True

    (tmp_path / "quick").touch()
    engine.get([usually_quick.remote(tmp_path / "quick") for _ in range(3)])
    ref = usually_quick.remote(tmp_path / "go")
    wait_for(lambda: "which is unusual" in caplog.text, "it is reported")
    assert re.search(r", which runs task \S+ \(\S+\), has been in it for [\d.]+ s, which is unusual", caplog.text)
    assert "in usually_quick\n" in caplog.text
    (tmp_path / "go").touch()
    assert engine.get(ref)
    assert caplog.text.count("which is unusual") == 1
    with StoreReader(api.current_backend().session.store) as reader:
        recorded = lambda: [each.detail for each in reader.events() if each.kind == "overdue"]  # noqa: E731
        wait_for(lambda: any("in usually_quick\n" in detail for detail in recorded()), "it is recorded")


@pytest.mark.parametrize("options", [{}, {"max_restarts": -1, "checkpoint_every": 0}], ids=["plain", "recoverable"])
def test_a_call_far_beyond_its_usual_time(caplog, tmp_path, options):
    class Usual:
        def quick(self, path):
            while not path.exists():
                time.sleep(0.005)
            return True

    actor = engine.remote(**options)(Usual).remote() if options else engine.remote(Usual).remote()
    (tmp_path / "quick").touch()
    engine.get([actor.quick.remote(tmp_path / "quick") for _ in range(3)])
    call = actor.quick.remote(tmp_path / "go")
    wait_for(lambda: "which is unusual" in caplog.text, "it is reported")
    assert re.search(
        r", which is actor \S+Usual \(\S+\), has been in its method quick for [\d.]+ s, which is unusual", caplog.text
    )
    assert " in quick\n" in caplog.text
    (tmp_path / "go").touch()
    assert engine.get(call)
    assert caplog.text.count("which is unusual") == 1


def test_an_actor_whose_event_loop_is_blocked(caplog, tmp_path):
    actor = Loop.remote()
    pid = engine.get(actor.pid.remote())
    call = actor.block_the_loop.remote(tmp_path / "go")
    wait_for(lambda: "in block_the_loop" in caplog.text, "it is reported")
    assert re.search(rf"worker w\d+ \(pid {pid}, .*\), which is actor Loop \(\S+\), has not answered", caplog.text)
    (tmp_path / "go").touch()
    engine.get(call)
    wait_for(lambda: "answers again" in caplog.text, "it is heard again")


def test_a_new_daemon_says_for_whom_it_waits(caplog, tmp_path):
    ref = match_for_ever.options(max_retries=0).remote(tmp_path / "begun")
    wait_for((tmp_path / "begun").exists, "the task begins")
    os.kill(engine_processes().daemon, signal.SIGKILL)
    wait_for(lambda: "has not reported to the daemon that was started anew" in caplog.text, "it is reported")
    assert "It is killed if it does not within 3.0 s. Its stacks" in caplog.text and "in match_for_ever" in caplog.text
    with pytest.raises(WorkerCrashedError):
        engine.get(ref)


def test_a_new_daemon_does_not_wait_for_ever(tmp_path):
    """For a worker that is stopped: others' tasks go on, and what it ran is run again."""
    ref = until.remote(tmp_path / "go")
    wait_for((tmp_path / "go.begun").exists, "the task begins")
    pid = int(re.search(r"runs on w\d+ \(pid (\d+)\)", str(engine.why(ref)))[1])
    os.kill(pid, signal.SIGSTOP)
    os.kill(engine_processes().daemon, signal.SIGKILL)
    (tmp_path / "gone").touch()
    assert engine.get(until.remote(tmp_path / "gone"), timeout=60) != pid
    (tmp_path / "go").touch()
    assert engine.get(ref, timeout=60) != pid


def test_the_patience_of_the_engine_is_checked(monkeypatch):
    """In another program, as an engine runs here."""
    monkeypatch.setenv("RLFLOW_SILENCE_SECONDS", "soon")
    with Driver("start()") as driver:
        code, _, err = driver.end()
        assert code and "RLFLOW_SILENCE_SECONDS must be a number of seconds above 0, got 'soon'" in err
