"""The daemon is killed at a chosen moment, with a frame lost or late: nothing is lost, and nothing is run twice."""

import os
import signal
import time

import numpy as np
import pytest
from crashing import note, noted
from restarting import kill_daemon, nothing_is_left, without_daemon
from waiting import is_gone, start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.exceptions import TaskCancelledError
from rlflow.engine.node.daemon import ACKNOWLEDGE_EVERY
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import delay, drop, inject, kill_at_message, lose

SUCCESSORS = "node.*"


@pytest.fixture
def restarted():
    """Starts an engine under faults; in the end nothing may be left in it."""
    yield start_engine
    try:
        wait_for(nothing_is_left, "nothing is left")
    finally:
        engine.shutdown()


@engine.remote
def noting(path, go=None):
    note(path)
    while go is not None and not os.path.exists(go):
        time.sleep(0.01)
    return os.path.basename(path)


def test_the_frame_behind_an_acknowledged_one_is_sent_again(restarted, tmp_path):
    with inject(drop(m.Submit, nth=2, sender="driver")) as faults:
        restarted()
        endpoint = api.current_backend().endpoint
        while endpoint._mail._sent["node"] < ACKNOWLEDGE_EVERY - 1:
            engine.available_resources()
        with endpoint.out.lock:  # the acknowledgement may not come between the two
            first = noting.remote(tmp_path / "first")
            endpoint.flush()
            second = noting.remote(tmp_path / "second")
            endpoint.flush()
        assert faults.happened() == [1]
        assert engine.get(first) == "first"
        wait_for(lambda: len(endpoint.unacknowledged) <= 1, "the node acknowledges")
        kill_daemon()
        assert engine.get(second, timeout=30) == "second"


def test_older_frames_of_the_driver_are_waited_for(restarted, tmp_path):
    with inject(delay(m.Submit, 0.3, sender="driver", receiver=SUCCESSORS)) as faults:
        restarted()
        go = tmp_path / "go"
        refs = [noting.remote(tmp_path / name, go) for name in ("one", "two")]
        wait_for(lambda: noted(tmp_path / "one") + noted(tmp_path / "two") == 2, "both run")
        with without_daemon():
            go.touch()
            assert engine.get(refs) == ["one", "two"]
        wait_for(lambda: faults.happened() == [1], "they were submitted again")
        assert engine.get(noting.remote(tmp_path / "three")) == "three"
        assert [noted(tmp_path / name) for name in ("one", "two", "three")] == [1, 1, 1]


def test_a_task_that_is_to_be_tried_again(restarted, tmp_path):
    """Its first attempt was reported, and the report comes once more."""
    @engine.remote(max_retries=1, retry_exceptions=True)
    def at_second():
        if note(tmp_path / "attempts") == 0:
            raise ValueError("once more")
        return "done"

    with inject(kill_at_message(m.Execute, sender="node", nth=2)) as faults:
        restarted()
        assert engine.get(at_second.remote(), timeout=30) == "done"
        assert faults.happened() == [1]
        assert noted(tmp_path / "attempts") == 2


def test_memory_that_became_free_as_the_daemon_died(restarted):
    with inject(drop(m.FreeBlocks, sender="node")) as faults:
        restarted()
        put = engine.put(np.ones(100_000))
        kept = engine.put(np.ones(100_000))
        del put
        api.current_backend().endpoint.flush()
        wait_for(lambda: faults.happened() == [1], "the node frees it")
        kill_daemon()
        assert engine.get(kept).sum() == 100_000
        wait_for(lambda: api.current_backend().storage.arena.blocks() == 1, "the block is free")


def test_a_task_that_was_cancelled_as_the_daemon_died(restarted, tmp_path):
    with inject(drop(m.CancelTask, sender="node")) as faults:
        restarted()
        endless = noting.remote(tmp_path / "endless", tmp_path / "never")
        wait_for(lambda: noted(tmp_path / "endless"), "it runs")
        engine.cancel(endless)
        for _ in range(2 * ACKNOWLEDGE_EVERY):  # until the node has acknowledged it
            engine.available_resources()
        assert faults.happened() == [1]
        kill_daemon()
        with pytest.raises(TaskCancelledError):
            engine.get(endless, timeout=30)


@engine.remote
def submits_and_ends(path):
    """Its task waits for the slot that another one has."""
    return os.getpid(), [noting.options(resources={"slot": 1}).remote(path)]


@pytest.mark.parametrize("seen", [True, False], ids=["before", "meanwhile"])
def test_what_a_dead_worker_had_submitted(restarted, tmp_path, seen):
    """A worker dies before the daemon, or while there is none: its tasks are run, by whoever takes over."""
    restarted(resources={"slot": 1})
    holder = noting.options(resources={"slot": 1}).remote(tmp_path / "holder", tmp_path / "go")
    wait_for(lambda: noted(tmp_path / "holder"), "the slot is taken")
    pid, (ref,) = engine.get(submits_and_ends.remote(tmp_path / "submitted"))
    if seen:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "died" in {event.kind for event in events()}, "the node knows")
        kill_daemon()
    else:
        with without_daemon():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: is_gone(pid), "the worker ends")
    assert engine.get(noting.remote(tmp_path / "other"), timeout=30) == "other"
    (tmp_path / "go").touch()
    assert engine.get(holder, timeout=30) == "holder"
    wait_for(lambda: noted(tmp_path / "submitted"), "it runs, though nobody waits for it")
    assert engine.get(ref, timeout=30) == "submitted"
    assert noted(tmp_path / "submitted") == 1


def events():
    with StoreReader(api.current_backend().session.store) as store:
        return list(store.events())


@engine.remote
def doubled(array):
    return 2 * array


def test_a_hold_that_is_taken_back_before_it_comes(restarted):
    """The daemon dies between the two, when the object itself is gone: nothing of what it was made from is kept."""
    restarted()
    process = api.current_backend()
    ref = doubled.remote(engine.put(np.ones(20_000)))
    assert engine.get(ref).sum() == 40_000
    oid = ref.binary()
    del ref
    wait_for(nothing_is_left, "it is gone")
    process.post_node(m.Hold(oid, b"w1", -1))
    assert process.questions.census()["tracked objects"] == 1
    kill_daemon()
    assert process.questions.census()["tracked objects"] == 1
    process.post_node(m.Hold(oid, b"w1", 1))
    wait_for(lambda: not process.questions.census()["tracked objects"], "both have come")
    assert process.questions.census()["ancestors"] == 0


@engine.remote
def opened(refs):
    return [engine.get(ref) for ref in refs]


@engine.remote(num_cpus=1)
def after(go=None, size=None):
    while go is not None and not os.path.exists(go):
        time.sleep(0.001)
    return os.getpid() if size is None else np.ones(size)


def test_results_of_a_dead_worker_that_only_their_owner_has_heard_of(restarted, tmp_path):
    """They ended while there was no daemon, and their worker took its report with it."""
    restarted(num_cpus=1)
    engine.get([after.remote() for _ in range(50)])  # so short that several are queued at the worker
    refs = [after.remote(tmp_path / "go"), after.remote(), after.remote(), after.remote()]
    wait_for(lambda: api.current_backend().unfinished.tasks(), "they are submitted")
    engine.wait(refs, timeout=0.3)
    with without_daemon():
        (tmp_path / "go").touch()
        ready, _ = engine.wait(refs, num_returns=4, timeout=2)
        pid = engine.get(ready[0])
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: is_gone(pid), "the worker ends")
    assert len(ready) > 1
    values = engine.get(ready)
    assert engine.get(opened.remote(ready), timeout=30) == values
    engine.get(refs, timeout=30)


@engine.remote
def plus_one(array, folder):
    with open(f"{folder}/runs", "a") as file:
        file.write("ran\n")
    return array + 1


def test_ancestors_are_known_though_the_end_of_a_task_was_heard_late(restarted, tmp_path):
    """The owner had let go of its argument by then, and that of its ancestors: nobody seemed to need them."""
    with inject(delay(m.Copied, 2.0, sender="w*")) as faults:  # what the worker says after it waits as well
        restarted()
        ref = engine.put(np.zeros(10_000))
        for _ in range(80):
            ref = plus_one.remote(ref, str(tmp_path))
        engine.wait([ref])
        assert faults.happened() == [1]
        wait_for(lambda: api.current_backend().questions.census()["ancestors"] < 40, "the line is cut")
        kill_daemon()
        (tmp_path / "runs").unlink()
        lose([ref])
        assert engine.get(ref)[0] == 80
        assert (tmp_path / "runs").read_text().count("\n") <= 64
        del ref
