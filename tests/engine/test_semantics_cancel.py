"""Cancelling: what has not begun never runs, what runs is interrupted, and nobody else notices."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import TaskCancelledError

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


def test_what_it_submitted_is_cancelled_too_unless_said_otherwise(tmp_path):
    @engine.remote
    def parent(folder):
        kept = [sleep.remote(folder / "child", 0.2)]
        (folder / "parent").touch()
        engine.get(kept[0])

    ref = parent.remote(tmp_path)
    begun(tmp_path / "child")
    engine.cancel(ref)
    assert is_cancelled(ref)
    wait_for(lambda: engine.available_resources() == engine.cluster_resources(), "the child ends")


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


def test_only_what_was_meant_is_hit(tmp_path):
    """Short tasks one after the other, half of them cancelled at any moment: the others all give their results."""
    for _ in range(30):
        refs = [quick.remote(i) for i in range(40)]
        for ref in refs[::2]:
            engine.cancel(ref)
        assert engine.get(refs[1::2]) == list(range(40))[1::2]
        for ref, i in zip(refs[::2], range(0, 40, 2), strict=True):
            try:
                assert engine.get(ref) == i
            except TaskCancelledError:
                continue


def test_a_borrower_can_cancel(tmp_path):
    @engine.remote
    def canceller(refs):
        engine.cancel(refs[0])

    ref = sleep.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.get(canceller.remote([ref]))
    assert is_cancelled(ref)


def test_it_is_in_the_history_and_not_retried(tmp_path):
    ref = sleep.options(max_retries=5).remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    engine.cancel(ref, force=True)
    assert is_cancelled(ref)
    (tmp_path / "begun").unlink()
    assert engine.get(quick.remote(1)) == 1
    assert not (tmp_path / "begun").exists()


@engine.remote
class Worker:
    async def long(self, path):
        path.touch()
        await asyncio.sleep(LONG)

    async def quick(self):
        return 1


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
