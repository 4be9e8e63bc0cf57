"""The control store: what was committed is there, for other processes, later, and after a SIGKILL of the writer."""

import itertools
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec
import pytest

from rlflow.engine import messages as m
from rlflow.engine.control_store import ControlStore, checkpoint_file
from rlflow.engine.ids import object_id, task_id
from rlflow.engine.serialization import dump_error
from rlflow.engine.store_reader import StoreReader

SCOPE = b"0123456789"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    store = ControlStore(tmp_path / "store")
    yield store
    store.close()


def spec(index: int, kind: int = m.TASK, function: bytes = b"f", name: str = "", method: str = "") -> m.Spec:
    recipe = m.Recipe(kind, function, "driver", 1, {"CPU": 1}, 3, name, method)
    return m.Spec(task_id(SCOPE, index), None, [], [], "", 0, 100.0 + index, m.encode(recipe))


def outcome(index: int, *values: m.Value, status: int = m.FINISHED, attempt: int = 0) -> m.Outcome:
    return m.Outcome(task_id(SCOPE, index), attempt, "w1", status, 200.0, 0.5, list(values))


def add_spec(store: ControlStore, spec: m.Spec) -> None:
    store.add_spec(spec.task, msgspec.Raw(m.encode(spec)))


def add_outcome(store: ControlStore, outcome: m.Outcome) -> None:
    store.add_outcome(outcome.task, msgspec.Raw(m.encode(outcome)))


def reading_process(path: Path, program: str) -> object:
    """What another process finds; ``program`` has the open reader in ``store`` and prints JSON."""
    program = (
        "import json, sys\nfrom rlflow.engine.store_reader import StoreReader\n"
        f"with StoreReader(sys.argv[1]) as store:\n    {program}\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# ---------------------------------------------------------------- the writer's side


def test_outcomes_and_values_are_there_before_the_commit_and_after(store):
    put = object_id(task_id(SCOPE, 7), 0)
    value = m.Inline(b"pickle", [b"buffer"], [b"ref"])
    add_outcome(store, outcome(1, value, m.Shm("w1-0", 64, [10, 20], [b"inner"])))
    store.add_stored(put, value)
    for _ in range(2):
        found = store.outcome(task_id(SCOPE, 1))
        assert found is not None and found.worker == "w1" and len(found.values) == 2
        assert store.value(object_id(task_id(SCOPE, 1), 0)) == value
        assert store.value(object_id(task_id(SCOPE, 1), 1)) == m.Shm("w1-0", 64, [10, 20], [b"inner"])
        assert store.value(object_id(task_id(SCOPE, 1), 2)) is None
        assert store.value(put) == value
        assert store.outcome(task_id(SCOPE, 2)) is None
        assert store.value(object_id(task_id(SCOPE, 2), 0)) is None
        store.commit()
    assert not store.gathered()


def test_values_outlive_the_transaction_they_were_read_in(store):
    """LMDB's pages are used again; what was decoded from them must not change."""
    add_outcome(store, outcome(1, m.Inline(b"x" * 5000)))
    store.commit()
    value = store.value(object_id(task_id(SCOPE, 1), 0))
    for _ in range(10):
        add_outcome(store, outcome(1, m.Inline(b"y" * 5000)))
        store.commit()
    assert value == m.Inline(b"x" * 5000)


def test_the_last_word_about_a_task_counts(store, tmp_path):
    add_spec(store, spec(1, name="first"))
    store.commit()
    add_spec(store, spec(1, name="again"))
    add_outcome(store, outcome(1, m.Inline(b"")))
    add_outcome(store, outcome(1, m.Inline(b""), attempt=1))
    store.commit()
    tasks = reading_process(tmp_path / "store", "print(json.dumps([(t.function, t.attempts) for t in store.tasks()]))")
    assert tasks == [["again", 2]]


def test_a_failed_commit_keeps_everything_for_the_next(tmp_path):
    path = tmp_path / "store"
    store = ControlStore(path, map_size=1 << 18)
    add_spec(store, spec(1, name="before"))
    store.commit()
    add_spec(store, spec(2, name="kept"))
    add_outcome(store, outcome(2, m.Inline(b"x" * 300_000)))
    store.add_function(b"f", "kept_function", b"blob")
    store.add_stored(object_id(task_id(SCOPE, 9), 0), m.Inline(b"kept"))
    store.add_event("kept", "event")
    for _ in range(2):
        with pytest.raises(lmdb.MapFullError):
            store.commit()
    assert store.gathered() and store.outcome(task_id(SCOPE, 2)) is not None
    seen = "print(json.dumps([t.function for t in store.tasks()]))"
    assert reading_process(path, seen) == ["before"]  # nothing in part
    add_outcome(store, outcome(2, m.Inline(b"small")))
    store.commit()
    assert reading_process(path, seen) == ["before", "kept"]
    assert store.value(object_id(task_id(SCOPE, 9), 0)) == m.Inline(b"kept")
    store.close()
    with StoreReader(path) as reader:
        assert reader.function(b"f") == ("kept_function", b"blob")
        assert [event.kind for event in reader.events()] == ["kept"]


def test_a_store_that_cannot_commit_can_be_closed(tmp_path):
    store = ControlStore(tmp_path / "store", map_size=1 << 18)
    add_outcome(store, outcome(1, m.Inline(b"x" * 300_000)))
    with pytest.raises(lmdb.MapFullError):
        store.close()
    with StoreReader(tmp_path / "store") as reader:  # LMDB refuses to open what is still open here
        assert list(reader.tasks()) == []


def test_events_are_numbered_on_after_a_restart(tmp_path):
    for kinds in (["a", "b"], ["c"]):
        store = ControlStore(tmp_path / "store")
        for kind in kinds:
            store.add_event(kind, "subject", "detail")
        store.close()
    with StoreReader(tmp_path / "store") as reader:
        events = list(reader.events())
    assert [event.kind for event in events] == ["a", "b", "c"]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert events[0].subject == "subject" and events[0].detail == "detail"


def test_files_are_private(store, tmp_path):
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "store").iterdir())


# ---------------------------------------------------------------- the reader's side


def test_history_of_tasks_actors_and_calls(tmp_path):
    store = ControlStore(tmp_path / "store")
    store.add_function(b"f", "simulate", b"blob")
    store.add_function(b"c", "Learner", b"blob")
    add_spec(store, spec(0, function=b"f"))
    add_spec(store, spec(1, kind=m.ACTOR, function=b"c"))
    add_spec(store, spec(2, kind=m.CALL, function=task_id(SCOPE, 1), method="update"))
    add_spec(store, spec(3, function=b"f", name="own name"))
    add_spec(store, spec(4, function=b"unknown"))
    add_spec(store, spec(5, kind=m.CALL, function=task_id(SCOPE, 99), method="update"))
    add_outcome(store, outcome(0, m.Inline(b""), attempt=2))
    error = dump_error("simulate", ValueError("first line\nlast line"), "w1")
    add_outcome(store, outcome(2, m.Failed(error), status=m.FAILED))
    add_outcome(store, outcome(3, m.Failed(b"no pickle"), status=m.CRASHED))
    store.close()
    with StoreReader(tmp_path / "store") as reader:
        tasks = list(reader.tasks())
    assert [task.function for task in tasks] == [
        "simulate", "Learner", "Learner.update", "own name", "?", "actor.update",
    ]
    assert [task.kind for task in tasks] == ["task", "actor", "call", "task", "task", "call"]
    assert [task.outcome for task in tasks] == ["finished", "pending", "failed", "crashed", "pending", "pending"]
    done, pending = tasks[0], tasks[1]
    assert (done.attempts, done.worker, done.submitted, done.started, done.duration) == (3, "w1", 100.0, 200.0, 0.5)
    assert done.error is None
    assert (pending.attempts, pending.worker, pending.started, pending.duration) == (0, "", None, None)
    assert tasks[2].error is not None and tasks[2].error.endswith("last line")
    assert tasks[3].error is not None and tasks[3].error.startswith("(error cannot be loaded")


@pytest.mark.parametrize("count", [0, 1, 4999, 5000, 5001, 10_001])
def test_tasks_come_in_order_over_any_number_of_pages(tmp_path, count):
    store = ControlStore(tmp_path / "store")
    for i in range(count):
        add_spec(store, spec(i, name=str(i)))
    store.close()
    with StoreReader(tmp_path / "store") as reader:
        assert [task.function for task in reader.tasks()] == [str(i) for i in range(count)]


def test_a_store_may_be_read_and_written_at_once(tmp_path):
    store = ControlStore(tmp_path / "store")
    for i in range(6000):
        add_spec(store, spec(i, name="old"))
    store.close()
    reader = StoreReader(tmp_path / "store")
    tasks = reader.tasks()
    assert len(list(itertools.islice(tasks, 5000))) == 5000
    program = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from test_control_store import *\nstore = ControlStore(Path(sys.argv[1]))\n"
        "add_spec(store, spec(6000, name='new'))\nstore.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "store", Path(__file__).parent], check=True)
    rest = list(tasks)
    assert len(rest) == 1001 and rest[-1].function == "new"
    reader.close()


def test_another_process_sees_what_is_committed_while_the_writer_lives(store, tmp_path):
    add_spec(store, spec(1, name="committed"))
    store.add_function(b"f", "simulate", b"blob")
    store.commit()
    add_spec(store, spec(2, name="gathered"))
    program = "print(json.dumps([[t.function for t in store.tasks()], store.function(b'f')[0]]))"
    assert reading_process(tmp_path / "store", program) == [["committed"], "simulate"]


def test_nothing_committed_is_lost_when_the_writer_is_killed(tmp_path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_control_store import *
        store = ControlStore(Path(sys.argv[1]))
        for i in range(1_000_000):
            add_spec(store, spec(i, name=str(i)))
            add_outcome(store, outcome(i, m.Inline(b"x" * 100)))
            store.commit()
            print(i, flush=True)
    """)
    writer = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "store", Path(__file__).parent], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 200:
            break
    writer.send_signal(signal.SIGKILL)
    printed = [int(line) for line in writer.stdout.read().splitlines()]  # a last line may be cut, and is shorter then
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    with StoreReader(tmp_path / "store") as reader:
        tasks = list(reader.tasks())
    assert len(tasks) > max(printed[:-1], default=200)
    assert [task.function for task in tasks] == [str(i) for i in range(len(tasks))]
    assert all(task.outcome == "finished" for task in tasks)
    store = ControlStore(tmp_path / "store")  # and it can be written again
    add_spec(store, spec(10**6, name="after"))
    store.close()
    with StoreReader(tmp_path / "store") as reader:
        assert list(reader.tasks())[-1].function == "after"


def test_no_store(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"no control store in .*data\.mdb"):
            StoreReader(path)


def test_another_programs_lmdb(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=1) as env:
        env.open_db(b"something else")
    with pytest.raises(FileNotFoundError, match="no table 'specs'"):
        StoreReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is not LMDB" * 1000])
def test_a_file_that_is_no_lmdb(tmp_path, content):
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=f"no control store in {tmp_path}"):
        StoreReader(tmp_path)


def test_a_reader_killed_in_the_middle_pins_nothing_for_ever(tmp_path):
    """Its transaction would keep the writer from using pages again, and its slot stay taken."""
    store = ControlStore(tmp_path / "store")
    store.add_function(b"f", "simulate", b"blob")
    store.commit()
    program = (
        "import os, signal, sys\nfrom rlflow.engine.store_reader import StoreReader\n"
        "transaction = StoreReader(sys.argv[1])._env.begin()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "store"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.forget_dead_readers() == 1
    assert store.forget_dead_readers() == 0
    store.close()


# ---------------------------------------------------------------- logs of recoverable actors

ACTOR, OTHER = task_id(SCOPE, 0), task_id(SCOPE, 1)


def log_calls(store: ControlStore, actor: bytes, numbers: range) -> None:
    for number in numbers:
        call = spec(1000 + number, m.CALL, actor, method=f"method {number}")
        add_spec(store, call)
        store.add_call(actor, number, call.task)


def logged(store: ControlStore, path: Path, after: int = 0) -> list[list[int]]:
    """What another process finds: of both actors the numbers of the calls behind ``after``, and the checkpoint."""
    store.commit()
    program = f"""
    actors = [bytes.fromhex(actor) for actor in {[ACTOR.hex(), OTHER.hex()]}]
    logs = [list(store.calls(actor, {after})) for actor in actors]
    assert all(call.recipe.method == f"method {{number}}" for log in logs for number, call in log)
    print(json.dumps([[number for number, _ in log] for log in logs] + [[store.checkpoint(a) for a in actors]]))"""
    found: list[list[int]] = reading_process(path / "store", program.strip())
    return found


def test_calls_are_read_in_order_and_page_by_page(store, tmp_path):
    log_calls(store, OTHER, range(1, 10))
    log_calls(store, ACTOR, range(1, 1300))
    assert logged(store, tmp_path) == [list(range(1, 1300)), list(range(1, 10)), [None, None]]
    assert logged(store, tmp_path, after=1290) == [list(range(1291, 1300)), [], [None, None]]


def test_a_checkpoint_cuts_the_log_of_its_actor(store, tmp_path):
    for actor in (ACTOR, OTHER):
        log_calls(store, actor, range(1, 11))
    store.add_checkpoint(ACTOR, 7)
    assert logged(store, tmp_path) == [[8, 9, 10], list(range(1, 11)), [7, None]]
    log_calls(store, ACTOR, range(11, 13))  # in one transaction with the cut behind them
    store.add_checkpoint(ACTOR, 11)
    store.drop_actor_log(OTHER)
    assert logged(store, tmp_path) == [[12], [], [11, None]]
    store.drop_actor_log(ACTOR)
    assert logged(store, tmp_path) == [[], [], [None, None]]


def test_older_files_go_when_the_checkpoint_is_committed(store, tmp_path):
    folder = tmp_path / "store" / "checkpoints"
    folder.mkdir()
    files = [checkpoint_file(tmp_path / "store", ACTOR, number) for number in (5, 10, 15)]
    unfinished = [file.with_name(f"{file.name}.tmp") for file in files]
    other = checkpoint_file(tmp_path / "store", OTHER, 5)
    for file in (*files, *unfinished, other):
        file.touch()
    store.add_checkpoint(ACTOR, 10)
    assert len(list(folder.iterdir())) == 7
    store.commit()
    assert set(folder.iterdir()) == {*files[1:], *unfinished[1:], other}
    store.drop_actor_log(ACTOR)
    store.commit()
    assert list(folder.iterdir()) == [other]
