"""The control store of a run: what it says of tasks, actors and calls, and when."""

import os

import pytest
from crashing import crash
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ActorDiedError, WorkerCrashedError
from rlflow.engine.store_reader import StoreReader


@pytest.fixture
def store(tmp_path):
    engine.init(num_cpus=2, store=tmp_path / "store", log_to_driver=False)
    yield tmp_path / "store"
    engine.shutdown()


@engine.remote
def identity(value):
    return value


@engine.remote
def fail():
    raise ValueError("of the task")


@engine.remote
def parent(n):
    return sum(engine.get([identity.remote(i) for i in range(n)]))


@engine.remote
class Counter:
    def __init__(self, broken=False):
        if broken:
            raise KeyError("of the init")
        self.value = 0

    def add(self, n=1):
        self.value += n
        return self.value

    def fail(self):
        raise RuntimeError("of the call")

    def die(self):
        os._exit(3)


def history(store):
    with StoreReader(store) as reader:
        return {task.task_id: task for task in reader.tasks()}


def of(ref):
    """The id of the task that makes ``ref``."""
    return ref.binary()[:14].hex()


def test_after_a_run(tmp_path, store):
    refs = [identity.remote(i) for i in range(100)]
    failed = fail.remote()
    crashed = crash.options(max_retries=1, name="doomed").remote(tmp_path / "doomed", 100)
    survived = crash.remote(tmp_path / "survivor", 2)
    nested = parent.remote(3)
    counter = Counter.remote()
    calls = [counter.add.remote() for _ in range(5)]
    failed_call = counter.fail.remote()
    broken = Counter.remote(broken=True)
    assert engine.get([*refs, survived, nested, *calls]) == [*range(100), "survived", 3, *range(1, 6)]
    for ref, error in ((failed, ValueError), (crashed, WorkerCrashedError), (failed_call, RuntimeError),
                       (broken.add.remote(), ActorDiedError)):
        with pytest.raises(error):
            engine.get(ref)
    engine.shutdown()

    tasks = history(store)
    workers = {task.worker for task in tasks.values()} - {""}
    assert workers and all(worker.startswith("w") for worker in workers)
    for ref in refs:
        task = tasks[of(ref)]
        assert (task.kind, task.function, task.attempts, task.outcome, task.error) == (
            "task", "identity", 1, "finished", None
        )
        assert task.submitted <= task.started + 1e-3 and 0 <= task.duration < 60 and task.worker in workers

    task = tasks[of(failed)]
    assert (task.function, task.attempts, task.outcome) == ("fail", 1, "failed")
    assert "ValueError: of the task" in task.error
    task = tasks[of(crashed)]
    assert (task.function, task.attempts, task.outcome) == ("doomed", 2, "crashed")
    assert "SIGKILL" in task.error
    task = tasks[of(survived)]
    assert (task.function, task.attempts, task.outcome, task.error) == ("crash", 3, "finished", None)

    assert tasks[of(nested)].outcome == "finished"
    identities = [task for task in tasks.values() if task.function == "identity"]
    assert len(identities) == 100 + 3 and all(task.outcome == "finished" for task in identities)

    actors = [task for task in tasks.values() if task.kind == "actor"]
    assert sorted((task.function, task.outcome) for task in actors) == [("Counter", "failed"), ("Counter", "finished")]
    assert "of the init" in next(task.error for task in actors if task.outcome == "failed")
    for ref in calls:
        task = tasks[of(ref)]
        assert (task.kind, task.function, task.attempts, task.outcome) == ("call", "Counter.add", 1, "finished")
        assert task.duration >= 0
    task = tasks[of(failed_call)]
    assert (task.kind, task.function, task.outcome) == ("call", "Counter.fail", "failed")
    assert "of the call" in task.error


def test_actors_that_crash(store):
    counter = Counter.remote()
    engine.get(counter.add.remote())
    with pytest.raises(ActorDiedError):
        engine.get(counter.die.remote())
    engine.shutdown()
    with StoreReader(store) as reader:
        assert any(event.kind == "actor died" and "exited with code 3" in event.detail for event in reader.events())
    creation = next(task for task in history(store).values() if task.kind == "actor")
    assert creation.outcome == "finished"  # it was created; what came later is in the events


def test_an_actor_that_crashes_in_its_init(store):
    @engine.remote
    class Stillborn:
        def __init__(self):
            os._exit(3)

        def method(self):
            return 1

    with pytest.raises(ActorDiedError):
        engine.get(Stillborn.remote().method.remote())
    engine.shutdown()
    creation = next(task for task in history(store).values() if task.kind == "actor")
    assert (creation.function, creation.outcome) == ("Stillborn", "crashed") or "Stillborn" in creation.function
    assert "exited with code 3" in creation.error


def spec_is_there(reader, ref):
    with reader._env.begin(db=reader._tables["specs"]) as txn:
        return txn.get(ref.binary()[:14]) is not None


def test_a_spec_is_stored_before_its_result_is_seen(store):
    """Guarantee 1, looked at from the driver at the moment when it has the result."""
    engine.get(identity.remote(0))
    with StoreReader(store) as reader:
        for n in range(300):
            ref = identity.remote(n)
            assert engine.get(ref) == n
            assert spec_is_there(reader, ref)
        refs = [identity.remote(n) for n in range(500)]
        pending = refs
        while pending:
            done, pending = engine.wait(pending, num_returns=1)
            assert all(spec_is_there(reader, ref) for ref in done)
        nested = parent.remote(4)
        engine.get(nested)
        assert spec_is_there(reader, nested)


def test_it_can_be_read_while_the_run_goes_on(tmp_path, store):
    @engine.remote
    def wait_for_file(path):
        wait_for(path.exists, "the file")

    running = wait_for_file.remote(tmp_path / "go")
    done = identity.remote(1)
    engine.get(done)
    wait_for(lambda: history(store)[of(done)].outcome == "finished", "the outcome is recorded")
    assert history(store)[of(running)].outcome == "pending"
    (tmp_path / "go").touch()
    engine.get(running)
    wait_for(lambda: history(store)[of(running)].outcome == "finished", "the outcome is recorded")


def test_calls_are_logged_behind(store):
    counter = Counter.remote()
    refs = [counter.add.remote() for _ in range(500)]
    engine.get(refs)
    wait_for(lambda: all(of(ref) in history(store) for ref in refs), "the calls are in the history")


def test_runs_in_one_store_follow_each_other(store):
    first = identity.remote(1)
    engine.get(first)
    engine.shutdown()
    engine.init(num_cpus=1, store=store)
    second = identity.remote(2)
    engine.get(second)
    engine.shutdown()
    tasks = history(store)
    assert tasks[of(first)].outcome == tasks[of(second)].outcome == "finished"


def test_the_store_of_a_killed_run_is_whole(tmp_path, store):
    refs = [identity.remote(n) for n in range(200)]
    engine.get(refs)
    wait_for(lambda: all(history(store)[of(ref)].outcome == "finished" for ref in refs), "all outcomes are recorded")
    os.kill(api.current_backend().supervisor_pid, 9)
    wait_for(lambda: api.current_backend().failure, "the engine is seen dead")
    engine.shutdown()
    tasks = history(store)
    assert all(tasks[of(ref)].outcome == "finished" for ref in refs)
