"""Workers that die under tasks: re-runs, their end, and what must not run twice."""

import os
import signal

import numpy as np
import pytest
from crashing import DEATHS, REASONS, crash, die_at_first, note, noted, noting
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from waiting import wait_for

from rlflow import engine
from rlflow.engine.exceptions import WorkerCrashedError

# --- one task ---


@pytest.mark.parametrize("how", DEATHS)
def test_a_task_whose_worker_dies_is_run_again(tmp_path, how):
    path = tmp_path / "runs"
    assert engine.get(crash.remote(path, 2, how)) == "survived"
    assert noted(path) == 3


@pytest.mark.parametrize("how", DEATHS)
def test_after_three_retries_it_is_an_error(tmp_path, how):
    path = tmp_path / "runs"
    with pytest.raises(WorkerCrashedError, match=rf"crash.*4 attempts.*max_retries=3.*{REASONS[how]}"):
        engine.get(crash.remote(path, 100, how))
    assert noted(path) == 4


def test_the_last_retry_counts(tmp_path):
    assert engine.get(crash.remote(tmp_path / "runs", 3)) == "survived"


def test_no_retries(tmp_path):
    path = tmp_path / "runs"
    with pytest.raises(WorkerCrashedError, match=r"1 attempt.*max_retries=0"):
        engine.get(crash.options(max_retries=0).remote(path, 1))
    assert noted(path) == 1


@engine.remote(max_retries=0)
def short(number, how=""):
    if how == "exits":
        os._exit(1)
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_what_had_ended_and_may_not_be_run_twice_is_not_lost_with_its_worker(how):
    """The worker has run it in the same millisecond."""
    engine.get([short.remote(i) for i in range(300)])  # it is known to be short, and so queued behind one another
    for _ in range(5):
        refs = [short.remote(i, how if i == 40 else "") for i in range(80)]
        with pytest.raises(WorkerCrashedError):
            engine.get(refs[40])
        assert engine.get([*refs[:40], *refs[41:]]) == [*range(40), *range(41, 80)]


def test_retries_for_ever(tmp_path):
    path = tmp_path / "runs"
    assert engine.get(crash.options(max_retries=-1).remote(path, 6)) == "survived"
    assert noted(path) == 7


def test_all_returns_of_a_crashed_task_are_the_error(tmp_path):
    for ref in crash.options(max_retries=0, num_returns=2).remote(tmp_path / "runs", 1):
        with pytest.raises(WorkerCrashedError):
            engine.get(ref)


def test_a_task_whose_argument_crashed_fails_with_its_error(tmp_path):
    broken = crash.options(max_retries=0).remote(tmp_path / "first", 1)
    path = tmp_path / "second"
    with pytest.raises(WorkerCrashedError):
        engine.get(noting.remote(path, broken))
    assert noted(path) == 0


def test_what_the_worker_said_last_is_in_the_error(tmp_path):
    with pytest.raises(WorkerCrashedError, match="Segmentation fault"):
        engine.get(crash.options(max_retries=0).remote(tmp_path / "runs", 1, "segfaults"))


# --- tasks behind others at the same worker ---


def test_tasks_queued_behind_a_crash_are_neither_lost_nor_blamed(tmp_path):
    """Every innocent task arrives; a crash makes it run once more at most, if its report was lost with the worker."""

    @engine.remote
    def quick(path, value, crash_at):
        note(path)
        if value == crash_at:
            die_at_first(f"{path}.crash", 3, "is_killed")
        return value

    engine.get([quick.remote(tmp_path / "warm", i, -1) for i in range(50)])  # short: from here on they are pipelined
    refs = [quick.remote(tmp_path / f"task{i}", i, 20) for i in range(60)]
    assert engine.get(refs) == list(range(60))
    runs = [noted(tmp_path / f"task{i}") for i in range(60)]
    assert runs[20] == 4
    assert all(1 <= n <= 4 for n in runs)


def test_the_task_that_crashes_is_blamed_not_its_neighbours(tmp_path):
    """A crash for good amid short tasks: just that task fails, however the others' reports were on the way."""

    @engine.remote
    def quick(path, value, crash_at):
        if value == crash_at:
            note(path)
            os._exit(3)
        return value

    path = tmp_path / "runs"
    engine.get([quick.remote(path, i, -1) for i in range(200)])
    for crash_at in range(3, 40, 4):
        refs = [quick.remote(path, i, crash_at) for i in range(40)]
        with pytest.raises(WorkerCrashedError):
            engine.get(refs[crash_at])
        del refs[crash_at]
        assert engine.get(refs) == [i for i in range(40) if i != crash_at]
    assert noted(path) == 4 * 10


# --- parents and children ---


def test_a_parent_that_is_run_again_finds_its_finished_children(tmp_path):
    @engine.remote
    def parent(folder):
        values = engine.get([noting.remote(folder / f"child{i}", i) for i in range(5)])
        die_at_first(folder / "parent", 2, "is_killed")
        return sum(values) + engine.get(noting.remote(folder / "last", 100))

    assert engine.get(parent.remote(tmp_path)) == 110
    assert noted(tmp_path / "parent") == 3
    assert [noted(tmp_path / f"child{i}") for i in range(5)] == [1] * 5
    assert noted(tmp_path / "last") == 1


def test_a_parent_that_is_run_again_finds_large_results_and_puts(tmp_path):
    @engine.remote
    def large(path, value):
        note(path)
        return np.full(100_000, value)

    @engine.remote
    def parent(folder):
        kept = engine.put(np.full(100_000, 7))
        first = engine.get(large.remote(folder / "child", 1))
        die_at_first(folder / "parent", 2, "is_killed")
        second = engine.get(large.remote(folder / "later", 2))
        return [int(a.sum()) for a in (first, second, engine.get(kept))], [kept]

    sums, (kept,) = engine.get(parent.remote(tmp_path))
    assert sums == [100_000, 200_000, 700_000]
    assert np.array_equal(engine.get(kept), np.full(100_000, 7))
    assert noted(tmp_path / "later") == 1


def test_children_that_wait_have_their_arguments_when_their_parent_is_dead_for_good(tmp_path):
    """Nobody else knows of the objects, and nobody waits for the children but the node."""

    @engine.remote
    def child(arrays, after, folder):
        (folder / "sum").write_text(str(int(engine.get(arrays[0]).sum() + arrays[1])))

    @engine.remote
    def ready(path):
        wait_for(path.exists, "the signal to go on")

    @engine.remote(max_retries=0)
    def parent(gate, folder):
        refs = [child.remote([engine.put(np.ones(100_000)), 7], gate[0], folder)]
        engine.get(noting.remote(folder / "handled", 1))  # behind the child, which is known to the node by now
        os.kill(os.getpid(), signal.SIGKILL)
        return refs

    gate = ready.remote(tmp_path / "go")
    with pytest.raises(WorkerCrashedError):
        engine.get(parent.remote([gate], tmp_path))
    assert noted(tmp_path / "handled") == 1
    (tmp_path / "go").touch()
    wait_for(lambda: (tmp_path / "sum").exists() and (tmp_path / "sum").read_text() == "100007", "the child is run")


def test_a_parent_killed_while_it_waits_for_children_that_run(tmp_path):
    """The child goes on elsewhere and its result reaches the parent's next attempt."""

    @engine.remote
    def child(folder):
        note(folder / "child")
        wait_for((folder / "go").exists, "the signal to go on")
        return "grown"

    @engine.remote
    def parent(folder):
        (folder / f"pid{note(folder / 'parent')}").write_text(str(os.getpid()))
        return engine.get(child.remote(folder), timeout=100)  # with a time-out it cannot run the child itself

    ref = parent.remote(tmp_path)
    wait_for(lambda: noted(tmp_path / "child"), "the child runs")
    os.kill(int((tmp_path / "pid0").read_text()), signal.SIGKILL)
    wait_for(lambda: noted(tmp_path / "parent") == 2, "the parent is run again")
    (tmp_path / "go").touch()
    assert engine.get(ref, timeout=60) == "grown"
    assert noted(tmp_path / "child") == 1


def test_a_child_that_crashes_on_top_of_its_parent(tmp_path):
    """Depth first, the child may run on its parent's worker: its crashes are not the parent's."""

    @engine.remote
    def parent(folder):
        note(folder / "parent")
        try:
            return engine.get(crash.remote(folder / "child", 100))
        except WorkerCrashedError:
            return "told"

    assert engine.get(parent.remote(tmp_path)) == "told"
    assert noted(tmp_path / "child") == 4


def test_trees_of_tasks_survive_crashes_in_them(tmp_path):
    @engine.remote
    def node(path, depth):
        if depth == 0:
            die_at_first(path, 1, "is_killed")
            return 1
        values = engine.get([node.remote(f"{path}.{i}", depth - 1) for i in range(2)])
        die_at_first(f"{path}.up", 1, "exits")
        return sum(values)

    assert engine.get(node.options(max_retries=-1).remote(str(tmp_path / "root"), 2)) == 4


def test_a_worker_killed_inside_get(tmp_path):
    @engine.remote
    def blocks(folder):
        wait_for((folder / "go").exists, "the signal to go on")

    @engine.remote
    def waits(folder, refs):
        if note(folder / "runs"):
            return "second attempt"
        (folder / "pid").write_text(str(os.getpid()))
        return engine.get(refs[0], timeout=100)

    blocker = blocks.remote(tmp_path)
    ref = waits.remote(tmp_path, [blocker])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the task waits")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert engine.get(ref) == "second attempt"
    (tmp_path / "go").touch()
    assert engine.get(blocker) is None
