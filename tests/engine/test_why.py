"""``engine.why``: what a ref waits for, why it is an error, where it is. The words are looked at as people see them."""

import os
import re
import signal
import time

import numpy as np
import pytest
from waiting import DEADLINE, all_resources_free, wait_for

from rlflow import engine
from rlflow.engine.exceptions import GetTimeoutError, TaskCancelledError
from rlflow.engine.explanation import Explanation
from rlflow.engine.testing import engine_processes


@engine.remote
def identity(*values):
    return values


@engine.remote
def fails():
    raise ValueError("no such level\nthere are three")


@engine.remote
def until(path):
    """Ends when it is told to."""
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.005)
    return path.name


@engine.remote
def ask_inside(refs):
    return str(engine.why(refs[0]))


@engine.remote(max_retries=1)
def crashes(path):
    path.touch()
    os._exit(7)


@engine.remote
class Counter:
    def until(self, path):
        path.with_suffix(".begun").touch()
        while not path.exists():
            time.sleep(0.005)

    def add(self, *values):
        return len(values)

    def get(self, refs):
        return engine.get(refs)


@engine.remote(max_restarts=1)
class Slow:
    def __init__(self, path):
        if path.with_suffix(".lived").exists():
            path.with_suffix(".begun").touch()
            while not path.exists():
                time.sleep(0.005)
        path.with_suffix(".lived").touch()

    def pid(self):
        return os.getpid()


def begun(path):
    wait_for(path.with_suffix(".begun").exists, f"{path.name} begins")


@pytest.fixture
def local(cluster):
    if cluster == "inline":
        pytest.skip("has run when remote() returns")


def test_what_is_there(cluster):
    ref = identity.remote(1)
    engine.get(ref)
    found = engine.why(ref)
    assert isinstance(found, Explanation) and found.state == "ready"
    assert re.search(r"is there: \d+ bytes, in memory$", str(found))
    large = engine.put(np.ones(1_000_000))
    found = engine.why(large)
    assert found.state == "ready" and " is there: 8 MB, in " in str(found)
    made = identity.remote(large)
    engine.get(made)
    assert engine.why(made).state == "ready"


def test_what_failed(cluster):
    ref = fails.remote()
    with pytest.raises(ValueError):
        engine.get(ref)
    found = engine.why(ref)
    assert found.state == "failed"
    assert "failed: fails raised ValueError: no such level" in str(found) and "three" not in str(found)


def test_what_can_never_run(cluster):
    ref = identity.options(num_cpus=1000).remote()
    dependent = identity.remote(ref)
    with pytest.raises(GetTimeoutError, match=r"identity.* can never run: it asks for .*1000"):
        engine.get(dependent, timeout=0.3)
    assert engine.why(ref).state == "never"
    assert "can never run" in str(engine.why(dependent))
    if cluster == "local":
        for each in (ref, dependent):
            engine.cancel(each)
            with pytest.raises(TaskCancelledError):
                engine.get(each)


def test_only_refs_are_explained(cluster):
    with pytest.raises(TypeError, match="why\\(\\) takes an ObjectRef, got int"):
        engine.why(3)


def test_running_queued_and_waiting_tasks(local, tmp_path):
    running = [until.remote(tmp_path / f"r{i}") for i in range(2)]
    for i in range(2):
        begun(tmp_path / f"r{i}")
    queued = until.remote(tmp_path / "r0")
    dependent = identity.remote(identity.remote(running[0], queued), 2)
    wait_for(lambda: engine.why(queued).state == "queued", "it is queued")
    behind = identity.remote()
    wait_for(lambda: "; 1 task like it were there before" in str(engine.why(behind)), "there is one more")
    found = engine.why(running[0])
    assert found.state == "running"
    assert re.search(r"^task until \(\S+\) runs on w\d+ \(pid \d+\); it has been running for [\d.]+ s$", str(found))
    lacks = r"is queued: it asks for 1 CPU, free: 0 of 2 CPU\. Taken by task until \(\S+\) on w\d+ \(1 CPU\), task"
    assert re.search(lacks, str(engine.why(queued)))
    found = engine.why(dependent)
    lines = str(found).splitlines()
    assert (found.state, found.causes[0].state) == ("waiting", "waiting")
    assert re.search(r"^task identity \(\S+\) waits for 1 argument:$", lines[0])
    assert re.search(r"^  task identity \(\S+\) waits for 2 arguments:$", lines[1])
    assert re.search(r"^    task until \(\S+\) runs on", lines[2]) and " is queued: " in lines[3]
    for i in range(2):
        (tmp_path / f"r{i}").touch()
    assert engine.get(dependent)[1] == 2


def test_a_time_out_says_why(local, tmp_path):
    ref = identity.remote(until.remote(tmp_path / "r"))
    begun(tmp_path / "r")
    with pytest.raises(GetTimeoutError, match=r"(?s)1 of 1 objects were not ready.* for 1 argument:\n  task until"):
        engine.get(ref, timeout=0.3)
    with pytest.raises(GetTimeoutError, match="1 of 1 objects"):
        engine.get(ref, timeout=0)
    (tmp_path / "r").touch()
    engine.get(ref)


def test_a_task_that_waits_in_get(local, tmp_path):
    @engine.remote
    def parent(path):
        return engine.get(until.remote(path), timeout=DEADLINE)

    ref = parent.remote(tmp_path / "r")
    begun(tmp_path / "r")
    found = str(engine.why(ref)).splitlines()
    assert " and waits in get() for:" in found[0] and re.search(r"^  task until \(\S+\) runs on", found[1])
    (tmp_path / "r").touch()
    engine.get(ref)


def test_calls_in_the_queue_of_an_actor(local, tmp_path):
    counter = Counter.remote()
    calls = [counter.until.remote(tmp_path / "r"), counter.add.remote(), counter.add.remote()]
    begun(tmp_path / "r")
    wait_for(lambda: engine.why(calls[2]).state == "queued", "all of them arrive")
    first, last = str(engine.why(calls[0])), str(engine.why(calls[2]))
    assert re.search(r"call Counter.until \(\S+\) was sent to its actor on w\d+; it has been running", first)
    assert re.search(r"in the actor's queue behind 2; Counter.until \(\S+\) is first: it has been", last)
    failed = crashes.remote(tmp_path / "ran")
    engine.wait([failed])
    assert re.search(r"^\S+ crashed \(attempt 2; before: ", engine.get(ask_inside.remote([failed])))
    asked = engine.get(ask_inside.remote([calls[1]]))
    assert "in the actor's queue behind 1" in asked, asked
    (tmp_path / "r").touch()
    engine.get(calls)


def test_calls_of_an_actor_that_runs_several_at_a_time(local, tmp_path):
    counter = Counter.options(max_concurrency=2).remote()
    calls = [counter.until.remote(tmp_path / "r") for _ in range(3)]
    begun(tmp_path / "r")
    arrived = "it has arrived; 2 calls that came before it have not ended"
    wait_for(lambda: arrived in str(engine.why(calls[2])), "all of them arrive")
    (tmp_path / "r").touch()
    engine.get(calls)


def test_calls_that_wait_for_arguments_and_for_the_actor(local, tmp_path):
    counter = Counter.remote()
    engine.get(counter.add.remote())
    pending = until.remote(tmp_path / "r")
    begun(tmp_path / "r")
    first, second = counter.add.remote(pending), counter.add.remote()
    found = engine.why(second)
    assert found.state == "waiting"
    assert "waits at driver behind 1 of the same caller; the first, Counter.add" in str(found)
    assert "\n  task until" in str(found)
    assert "waits at driver for its arguments:\n  task until" in str(engine.why(first))
    late = Counter.options(num_cpus=2).remote()
    call = late.add.remote()
    wait_for(lambda: "is queued" in str(engine.why(call)), "the creation is queued")
    creation = r"(?s)waits at driver for its actor:\n  actor Counter \(\S+\) is queued: it asks for 2 CPU"
    assert re.search(creation, str(engine.why(call)))
    (tmp_path / "r").touch()
    engine.get([first, second, call])


def test_a_call_that_waits_for_something_itself(local, tmp_path):
    counter = Counter.remote()
    call = counter.get.remote([until.remote(tmp_path / "r")])
    begun(tmp_path / "r")
    wait_for(lambda: "waits in get() for:\n  task until" in str(engine.why(call)), "the call waits")
    (tmp_path / "r").touch()
    engine.get(call)


def test_why_there_were_several_attempts(local, tmp_path):
    @engine.remote(max_retries=-1)
    def crashes_once(crashed, path):
        if not crashed.exists():
            crashed.touch()
            os._exit(8)
        return engine.get(until.remote(path))

    ref = crashes.remote(tmp_path / "ran")
    with pytest.raises(engine.exceptions.WorkerCrashedError):
        engine.get(ref)
    attempts = r"crashed \(attempt 2; before: worker w\d+ \(pid \d+\) exited with code 7\)$"
    assert re.search(attempts, str(engine.why(ref)))
    ref = crashes_once.remote(tmp_path / "crashed", tmp_path / "r")
    begun(tmp_path / "r")
    assert re.search(r"\(attempt 2; before: worker \S+ \(pid \d+\) exited with code 8\) runs on", str(engine.why(ref)))
    (tmp_path / "r").touch()
    assert engine.get(ref) == "r"
    assert engine.why(ref).state == "ready"


def test_an_actor_that_is_started_again(local, tmp_path):
    slow = Slow.remote(tmp_path / "r")
    os.kill(engine.get(slow.pid.remote()), signal.SIGKILL)
    begun(tmp_path / "r")
    calls = [slow.pid.remote()]  # the first of them may have been on its way to the one that died

    def says_so():
        calls.append(slow.pid.remote())
        return re.search(again, str(engine.why(calls[-1])))

    again = r"(?s)its actor, which is being started again \(1 so far\):\n  actor Slow .* \(attempt 2; before: worker"
    wait_for(says_so, "the caller hears of the restart")
    (tmp_path / "r").touch()
    assert engine.get(calls[-1])


def test_a_node_that_does_not_answer_holds_nobody_up(local, tmp_path):
    ref = until.remote(tmp_path / "r")
    begun(tmp_path / "r")
    node = engine_processes().daemon
    os.kill(node, signal.SIGSTOP)
    try:
        with pytest.raises(GetTimeoutError, match="the node did not answer in time"):
            engine.get(ref, timeout=0.2)
    finally:
        os.kill(node, signal.SIGCONT)
    (tmp_path / "r").touch()
    assert engine.get(ref) == "r"
    wait_for(all_resources_free, "the task ends at the node")
