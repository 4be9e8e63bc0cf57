"""Cancelling: what has not begun never runs, what runs is interrupted, and nobody else notices."""

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest
from waiting import DEADLINE, all_resources_free, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import TaskCancelledError
from rlflow.engine.ids import task_of
from rlflow.engine.store_reader import StoreReader

LONG = 1000.0


@pytest.fixture(autouse=True)
def local(request, cluster):
    """The inline engine has run everything by the time that anybody could cancel it."""
    if cluster == "inline" and "inline" not in request.node.name.partition("[")[0]:
        pytest.skip("has run when remote() returns")


@engine.remote
def sleep(path, seconds=LONG):
    path.touch()
    time.sleep(seconds)
    return "slept"


@engine.remote
def spin(path):
    path.touch()
    while True:
        sum(range(100))


@engine.remote
def wait_for_another(path):
    return engine.get(sleep.remote(path))


@engine.remote
def touch(path, *_):
    path.touch()
    return os.getpid()


@engine.remote
def stubborn(path):
    path.touch()
    while True:
        try:
            time.sleep(LONG)
        except KeyboardInterrupt:
            path.with_suffix(".refused").touch()


@engine.remote
def quick(n):
    return n


def begun(path: Path) -> None:
    wait_for(path.exists, f"{path.name} begins")


def is_cancelled(ref) -> bool:
    with pytest.raises(TaskCancelledError, match="was cancelled"):
        engine.get(ref, timeout=30)
    return True


@pytest.mark.parametrize("task", [sleep, spin, wait_for_another])
def test_a_running_task_is_interrupted(tmp_path, task):
    ref = task.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.cancel(ref)
    assert is_cancelled(ref)
    assert engine.get(quick.remote(1)) == 1


def test_what_has_not_begun_never_does(tmp_path):
    running = [sleep.remote(tmp_path / f"running{i}") for i in range(2)]
    queued = touch.remote(tmp_path / "queued")
    waiting = touch.remote(tmp_path / "waiting", running[0])
    for ref in (queued, waiting):
        engine.cancel(ref)
        assert is_cancelled(ref)
    for ref in running:
        engine.cancel(ref)
        assert is_cancelled(ref)
    assert engine.get(quick.remote(1)) == 1
    assert not (tmp_path / "queued").exists() and not (tmp_path / "waiting").exists()


def test_what_depends_on_it_fails_with_it(tmp_path):
    ref = sleep.remote(tmp_path / "begun")
    dependent = touch.remote(tmp_path / "dependent", ref)
    engine.cancel(ref)
    assert is_cancelled(dependent)


@engine.remote
def until(folder):
    """Ends when it is told to."""
    (folder / "child").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    (folder / "ended").touch()


@engine.remote
def parent_of(folder, child):
    kept = child.remote(folder)
    (folder / "parent").touch()
    engine.get(kept)


def test_what_it_submitted_is_cancelled_with_it(tmp_path):
    ref = parent_of.remote(tmp_path, until)
    begun(tmp_path / "child")
    engine.cancel(ref)
    assert is_cancelled(ref)
    wait_for(all_resources_free, "the child ends")
    assert not (tmp_path / "ended").exists()


def test_what_it_submitted_goes_on_where_that_is_asked_for(tmp_path):
    @engine.remote
    def parent(folder):
        until.remote(folder)
        time.sleep(LONG)

    ref = parent.remote(tmp_path)
    begun(tmp_path / "child")
    engine.cancel(ref, recursive=False)
    assert is_cancelled(ref)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "ended").exists, "the child ends by itself")


def test_calls_that_it_made_are_cancelled_with_it(tmp_path):
    @engine.remote
    def parent(folder, actor):
        engine.get([actor.long.remote(folder / "call"), actor.long.remote(folder / "other")])

    actor = Worker.remote()
    ref = parent.remote(tmp_path, actor)
    begun(tmp_path / "call")
    begun(tmp_path / "other")
    engine.cancel(ref)
    assert is_cancelled(ref)
    for name in ("call", "other"):
        wait_for((tmp_path / name).with_suffix(".cancelled").exists, f"{name} is cancelled")


@engine.remote
def leaves_behind(folder, actor):
    """Ends, and what it has submitted goes on."""
    if actor is None:
        until.remote(folder)
    else:
        actor.long.remote(folder / "call")
        begun(folder / "call")


@engine.remote
def grandparent(folder, actor):
    engine.get(leaves_behind.remote(folder, actor))
    (folder / "child has ended").touch()
    time.sleep(LONG)


def test_grandchildren_whose_parent_has_ended_are_cancelled(tmp_path):
    ref = grandparent.remote(tmp_path, None)
    begun(tmp_path / "child has ended")
    begun(tmp_path / "child")
    engine.cancel(ref)
    assert is_cancelled(ref)
    wait_for(all_resources_free, "the grandchild ends")
    assert not (tmp_path / "ended").exists()


def test_calls_that_an_ended_child_made_are_cancelled(tmp_path):
    actor = Worker.remote()
    ref = grandparent.remote(tmp_path, actor)
    begun(tmp_path / "child has ended")
    engine.cancel(ref)
    assert is_cancelled(ref)
    wait_for((tmp_path / "call.cancelled").exists, "the call is cancelled")


def test_tasks_that_an_ended_call_submitted_are_cancelled(tmp_path):
    @engine.remote
    class Submits:
        def submit(self, folder):
            until.remote(folder)

    @engine.remote
    def parent(folder, actor):
        engine.get(actor.submit.remote(folder))
        (folder / "call has ended").touch()
        time.sleep(LONG)

    actor = Submits.remote()
    ref = parent.remote(tmp_path, actor)
    begun(tmp_path / "call has ended")
    begun(tmp_path / "child")
    with StoreReader(api.current_backend().session.store) as reader:
        wait_for(lambda: any(each.function.endswith(".submit") for each in reader.tasks()), "the call is recorded")
    engine.cancel(ref)
    assert is_cancelled(ref)
    wait_for(all_resources_free, "what the call submitted ends")
    assert not (tmp_path / "ended").exists()


def _slow(folder):
    (folder / "unpickling").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)


class SlowToUnpickle:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return _slow, (self.folder,)


@pytest.mark.parametrize("force", [False, True])
def test_a_task_whose_arguments_are_being_unpacked(tmp_path, force):
    ref = touch.remote(tmp_path / "begun", SlowToUnpickle(tmp_path))
    begun(tmp_path / "unpickling")
    engine.cancel(ref, force=force)
    if not force:
        assert "it has been running for" in str(engine.why(ref))  # its worker answers this after it has had the request
        (tmp_path / "go").touch()
    assert is_cancelled(ref)
    assert not (tmp_path / "begun").exists()


def test_many_requests_for_one_task_leave_its_worker_alone(tmp_path):
    """The second one may come as the exception of the first leaves the task."""
    engine.get([sleep.remote(tmp_path / f"warm{i}", 0) for i in range(2)])
    supervisor = psutil.Process(api.current_backend().supervisor_pid)
    before = supervisor.children(recursive=True)
    for i in range(50):
        ref = sleep.remote(tmp_path / str(i))
        begun(tmp_path / str(i))
        for _ in range(5):
            engine.cancel(ref)
        assert is_cancelled(ref)
    assert set(before) <= set(supervisor.children(recursive=True))


def test_a_task_that_does_not_react_is_killed_with_force(tmp_path):
    ref = stubborn.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.cancel(ref)
    wait_for((tmp_path / "begun.refused").exists, "it refuses")
    engine.cancel(ref, force=True)
    assert is_cancelled(ref)


def test_force_hits_no_neighbour(tmp_path):
    """Tasks queued behind it at the same worker are run elsewhere, without having lost a try."""
    engine.get([quick.remote(i) for i in range(50)])  # known to be short: they are queued behind one another
    for round_ in range(5):
        path = tmp_path / str(round_)
        victims = [sleep.options(max_retries=0).remote(path.with_suffix(f".{i}")) for i in range(2)]
        others = [quick.options(max_retries=0).remote(i) for i in range(20)]
        for i in range(2):
            begun(path.with_suffix(f".{i}"))
        for ref in victims:
            engine.cancel(ref, force=True)
        assert all(is_cancelled(ref) for ref in victims)
        assert engine.get(others) == list(range(20))


def test_a_finished_task_stays_as_it_is():
    ref = quick.remote(5)
    assert engine.get(ref) == 5
    engine.cancel(ref)
    engine.cancel(ref, force=True)
    assert engine.get(ref) == 5


@engine.remote
def on_board(path, n):
    """Says that it runs, and runs about as long as a request takes to come."""
    with path.open("r+b", buffering=0) as board:
        board.seek(n)
        board.write(b"x")
    end = time.perf_counter() + 0.001 * (n % 8)
    while time.perf_counter() < end:
        pass
    return n


def test_only_what_was_meant_is_hit(tmp_path):
    """Each second task is cancelled as it runs; many of the requests come when the next one does."""
    hit = 0
    for round_ in range(30):
        path = tmp_path / str(round_)
        path.write_bytes(b"." * 200)
        refs = [on_board.remote(path, n) for n in range(200)]
        seen = path.read_bytes()
        deadline = time.monotonic() + DEADLINE
        while b"." in seen:
            assert time.monotonic() < deadline, "tasks that nobody cancelled do not begin"
            now = path.read_bytes()
            for n in range(0, 200, 2):
                if now[n] != seen[n]:
                    engine.cancel(refs[n])
            seen = now
        assert engine.get(refs[1::2]) == list(range(200))[1::2]
        for n in range(0, 200, 2):
            try:
                assert engine.get(refs[n]) == n
            except TaskCancelledError:
                hit += 1
        if hit >= 20:
            return
    raise AssertionError(f"only {hit} tasks were interrupted")


def test_a_borrower_can_cancel(tmp_path):
    @engine.remote
    def canceller(refs):
        engine.cancel(refs[0])

    ref = sleep.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.get(canceller.remote([ref]))
    assert is_cancelled(ref)


@pytest.mark.parametrize("force", [False, True])
def test_a_borrower_can_cancel_a_call(tmp_path, force):
    @engine.remote
    def canceller(refs):
        engine.cancel(refs[0], force=force)

    actor = Worker.remote()
    ref = actor.long.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.get(canceller.remote([ref]))
    assert is_cancelled(ref)
    assert engine.get(actor.quick.remote()) == 1


@pytest.mark.parametrize("force", [False, True])
def test_it_is_in_the_history_and_not_retried(tmp_path, force):
    ref = sleep.options(max_retries=5).remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.cancel(ref, force=force)
    assert is_cancelled(ref)
    with StoreReader(api.current_backend().session.store) as reader:
        task = task_of(ref.binary()).hex()
        found = lambda: [each for each in reader.tasks() if each.task_id == task]  # noqa: E731
        wait_for(lambda: found()[0].outcome != "pending", "its outcome is recorded")
        (recorded,) = found()
    assert (recorded.outcome, recorded.attempts) == ("cancelled", 1)
    assert "was cancelled" in recorded.error


@engine.remote
class Worker:
    async def long(self, path):
        path.touch()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            path.with_suffix(".cancelled").touch()
            raise

    async def quick(self):
        return 1

    async def requests_on_record(self):
        return len(api.current_backend().cancellation.requested)


@engine.remote
class Plain:
    def long(self, path, seconds):
        path.touch()
        time.sleep(seconds)
        return "ended"

    def quick(self):
        return 1


def test_a_coroutine_is_cancelled(tmp_path):
    actor = Worker.remote()
    ref = actor.long.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.cancel(ref)
    assert is_cancelled(ref)
    assert engine.get(actor.quick.remote()) == 1


def test_a_request_that_comes_too_late_leaves_nothing():
    actor = Worker.remote()
    for _ in range(50):
        ref = actor.quick.remote()
        engine.cancel(ref)
        try:
            engine.get(ref)
        except TaskCancelledError:
            continue
    assert engine.get(actor.requests_on_record.remote()) == 0


def test_queued_calls_are_dropped_and_a_running_method_goes_on(tmp_path):
    actor = Plain.remote()
    running = actor.long.remote(tmp_path / "begun", 0.5)
    begun(tmp_path / "begun")
    queued = actor.long.remote(tmp_path / "queued", 0)
    after = actor.quick.remote()
    engine.cancel(queued)
    engine.cancel(running)
    assert is_cancelled(queued)
    assert engine.get(running) == "ended"
    assert engine.get(after) == 1
    assert not (tmp_path / "queued").exists()


def test_a_call_that_waits_for_its_argument_is_dropped(tmp_path):
    actor = Plain.remote()
    argument = sleep.remote(tmp_path / "begun")
    call = actor.long.remote(argument, 0)
    after = actor.quick.remote()
    engine.cancel(call)
    assert is_cancelled(call)
    assert engine.get(after) == 1
    engine.cancel(argument)
    assert is_cancelled(argument)


def test_calls_are_not_cancelled_by_force(tmp_path):
    actor = Worker.remote()
    ref = actor.long.remote(tmp_path / "begun")
    with pytest.raises(ValueError, match="force=True"):
        engine.cancel(ref, force=True)
    engine.cancel(ref)
    assert is_cancelled(ref)


def test_wrong_arguments_inline_as_well(cluster):
    with pytest.raises(TypeError, match="cancel\\(\\) takes an ObjectRef, got int"):
        engine.cancel(3)
    ref = quick.remote(1)
    engine.cancel(ref)
    assert api.is_initialized()
