"""The control store within its bound: the oldest records go, what is needed stays, and the file stops growing."""

import os
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pytest
from crashing import note, noted
from recovering import Ledger, kill, replayed
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.control_store import ControlStore
from rlflow.engine.exceptions import ObjectLostError
from rlflow.engine.history import IDS_PER_RECORD
from rlflow.engine.ids import object_id, task_id
from rlflow.engine.runtime import process
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import lose

LIMIT = 1 << 20


def submit(store: ControlStore, task: bytes) -> None:
    recipe = m.Recipe(m.TASK, b"f", "driver", 1, {"CPU": 1}, 3, "f")
    spec = m.Spec(task, None, [], [], "", 0, 100.0, m.encode(recipe))
    store.add_spec(task, msgspec.Raw(m.encode(spec)))
    store.add_outcome(task, msgspec.Raw(m.encode(m.Outcome(task, 0, "w1", 0, 1.0, 1.0, [m.Inline(b"value")]))))


def fill(store: ControlStore, scope: bytes, count: int, first: int = 0, batch: int = 100) -> None:
    for start in range(first, first + count, batch):
        for index in range(start, min(start + batch, first + count)):
            submit(store, task_id(scope, index))
        store.commit()


def recorded(path: Path) -> tuple[list[bytes], int]:
    with StoreReader(path) as reader:
        return list(reader.task_ids()), reader.flushed()


def file_bytes(path: Path) -> int:
    return (path / "data.mdb").stat().st_size


def test_the_oldest_go_whoever_submitted_them(tmp_path):
    store = ControlStore(tmp_path, limit=LIMIT)
    scopes = [bytes([255 - i]) * 10 for i in range(50)]  # the youngest have the lowest keys
    for scope in scopes:
        fill(store, scope, 400)
    store.close()
    ids, flushed = recorded(tmp_path)
    assert len(ids) + flushed == 50 * 400 and flushed > 10_000
    left = {task[:10] for task in ids}
    assert left == set(scopes[-len(left):])


def test_the_file_stops_growing(tmp_path):
    store = ControlStore(tmp_path, limit=LIMIT)
    fill(store, bytes(10), 20_000)
    size = file_bytes(tmp_path)
    fill(store, bytes(10), 100_000, first=20_000)
    assert file_bytes(tmp_path) <= 1.2 * size <= 4 * LIMIT
    store.close()


def test_below_the_limit_nothing_goes(tmp_path):
    store = ControlStore(tmp_path)
    fill(store, bytes(10), 5000)
    store.close()
    ids, flushed = recorded(tmp_path)
    assert len(ids) == 5000 and flushed == 0


def test_what_is_needed_stays_and_goes_when_it_is_not(tmp_path):
    store = ControlStore(tmp_path, limit=LIMIT)
    needed = {task_id(bytes(10), index) for index in range(0, 3000, 7)}
    store.history.needed = needed.__contains__
    put = object_id(task_id(bytes(10), 1 << 20), 0)
    needed.add(put[:14])
    store.add_stored(put, m.Inline(b"put"))
    fill(store, bytes(10), 60_000)
    assert all(store.outcome(task) is not None for task in needed if task != put[:14])
    assert store.outcome(task_id(bytes(10), 1)) is None
    assert store.value(put) == m.Inline(b"put")
    was = set(needed)
    needed.clear()
    fill(store, bytes(10), 60_000, first=60_000)
    assert store.value(put) is None and not any(store.outcome(task) for task in was)
    store.close()


def test_a_store_that_is_opened_again_goes_on_where_it_was(tmp_path):
    for start in (0, 30_000):
        store = ControlStore(tmp_path, limit=LIMIT)
        fill(store, bytes(10), 30_000 - 5, first=start)
        store.close()
    ids, flushed = recorded(tmp_path)
    assert len(ids) + flushed == 60_000 - 10
    assert ids[0] > task_id(bytes(10), 30_000)  # what was young at the first end is known as well
    assert ids == sorted(ids)


def test_a_commit_that_fails_cuts_nothing(tmp_path):
    store = ControlStore(tmp_path, map_size=1 << 19, limit=1 << 16)
    fill(store, bytes(10), 4 * IDS_PER_RECORD)
    before = store.history.flushed
    store.add_stored(bytes(16), m.Inline(bytes(1 << 20)))
    young = task_id(bytes(10), 1 << 20)
    submit(store, young)
    for _ in range(3):
        with pytest.raises(lmdb.MapFullError):
            store.commit()
        assert store.history.flushed == before
    store.add_stored(bytes(16), m.Inline(b"small"))
    store.commit()
    assert store.outcome(young) is not None
    store.close()


# ---------------------------------------------------------------- in the engine


@engine.remote
def echo(value):
    return value


@engine.remote
class Keeper:
    def read(self, refs):
        return engine.get(refs[0])


def test_refs_older_than_the_history_still_have_their_values():
    start_engine(store_limit=LIMIT)
    store = api.current_backend().session.store
    keeper = Keeper.options(name="keeper").remote()
    result, put, held = echo.remote("result"), engine.put("put"), echo.remote("held")
    assert engine.get([result, held]) == ["result", "held"]
    assert engine.get(keeper.read.remote([held])) == "held"  # it has left this process before the cut
    for _ in range(40):
        engine.get([echo.remote(i) for i in range(1000)])
    with StoreReader(store) as reader:
        wait_for(lambda: reader.flushed() > 10_000, "history is cut")
        assert reader.task(keeper._info.actor_id) is not None
        assert reader.spec(result.binary()[:14]) is None
    for ref, value in ((result, "result"), (put, "put"), (held, "held")):
        assert engine.get(keeper.read.remote([ref])) == value
        assert engine.get(echo.remote(ref)) == value
    assert engine.get(engine.get_actor("keeper").read.remote([result])) == "result"
    del ref, result, put, held, keeper
    engine.shutdown()


def test_what_a_replay_needs_is_never_history(tmp_path):
    """The log of a recoverable actor, and what its calls submitted."""

    @engine.remote
    def double(value):
        note(tmp_path / "doubled")
        return 2 * value

    @engine.remote(max_restarts=-1, checkpoint_every=0)
    class Doubler:
        def __init__(self, ledger):
            self.ledger = ledger
            self.total = 0

        def add(self, value):
            self.total += engine.get(double.remote(value))
            engine.get(self.ledger.add.remote(value))
            return self.total

        def pid(self):
            return os.getpid()

    start_engine(store_limit=LIMIT)
    ledger = Ledger.remote()
    doubler = Doubler.remote(ledger)
    assert engine.get([doubler.add.remote(1) for _ in range(100)])[-1] == 200
    for _ in range(40):
        engine.get([echo.remote(i) for i in range(1000)])
    with StoreReader(api.current_backend().session.store) as reader:
        wait_for(lambda: reader.flushed() > 10_000, "history is cut")
    kill(doubler)
    assert engine.get(doubler.add.remote(1)) == 202
    assert replayed(doubler) == [101]
    assert noted(tmp_path / "doubled") == len(engine.get(ledger.all.remote())) == 101
    del doubler, ledger
    engine.shutdown()


@engine.remote
def ones(padding):
    return np.ones(2000)


@engine.remote
def double(array):
    return 2 * array


def test_lineage_of_what_lives_stays_while_there_is_room_and_its_loss_is_told(tmp_path):
    """The specs behind living objects are kept, up to twice the limit; then the oldest go, and the error says so."""
    start_engine(store_limit=1 << 19)
    padding = bytes(1500)
    refs = [double.remote(ones.remote(padding)) for _ in range(100)]
    engine.wait(refs, num_returns=len(refs))
    engine.get([echo.remote(i) for i in range(5000)])
    history_is_cut(1000)
    lose(refs)
    assert engine.get(refs[0]).sum() == 4000
    refs += [double.remote(ones.remote(padding)) for _ in range(1500)]
    engine.wait(refs, num_returns=len(refs))
    before = store_flushed()
    engine.get([echo.remote(padding) for _ in range(3000)])
    history_is_cut(before + 1000)
    lose(refs)
    with pytest.raises(ObjectLostError, match=r"needs ObjectRef.*store_limit"):
        engine.get(refs[1])
    del refs
    engine.shutdown()


def history_is_cut(flushed):
    """It is so as more comes in, and how much comes in at once depends on how busy the machine is."""
    wait_for(lambda: engine.get([echo.remote(i) for i in range(500)]) and store_flushed() > flushed, "history is cut")


def store_flushed():
    with StoreReader(api.current_backend().session.store) as reader:
        return reader.flushed()


# ---------------------------------------------------------------- functions


def bytes_of_functions(store: ControlStore) -> int:
    return sum(len(value) for _, value in store.rows("functions"))


def use(store: ControlStore, function: bytes, task: bytes, blob: bytes | None = None) -> None:
    if blob is not None:
        store.add_function(function, "closure", blob)
    recipe = m.Recipe(m.TASK, function, "driver", 1, {"CPU": 1}, 3, "f")
    spec = m.Spec(task, None, [], [], "", 0, 100.0, m.encode(recipe))
    store.add_spec(task, msgspec.Raw(m.encode(spec)))


def test_functions_go_when_no_spec_names_them_and_no_process_counts_on_them(tmp_path):
    store = ControlStore(tmp_path, limit=LIMIT)
    held, counted_on = b"h" * 16, b"c" * 16
    store.history.functions.in_use = {counted_on}.__contains__
    kept = task_id(bytes([9]) * 10, 0)
    store.history.needed = {kept}.__contains__
    use(store, held, kept, bytes(1000))
    store.add_function(counted_on, "counted on", bytes(1000))
    most = 0
    for index in range(20_000):
        use(store, index.to_bytes(16, "big"), task_id(bytes(10), index), bytes(300))
        if index % 100 == 99:
            store.commit()
        if index % 5000 == 4999:
            most = max(most, bytes_of_functions(store))
    assert most < 2 * LIMIT
    functions = store.keys("functions")
    assert {held, counted_on} <= functions
    named = {store_function(store, task) for task in store.keys("specs")}
    assert named <= functions
    store.close()


def store_function(store: ControlStore, task: bytes) -> bytes:
    raw = store.spec(task)
    assert raw is not None
    return m.decode_spec(raw).recipe.function


def test_a_function_that_comes_again_while_it_is_about_to_go_stays(tmp_path):
    """At every moment of a round."""
    for moment in range(1, 30):
        store = ControlStore(tmp_path / str(moment), limit=LIMIT)
        for index in range(1, 600):
            use(store, index.to_bytes(16, "big"), task_id(bytes(10), index), bytes(3000))
        store.commit()
        for batch in range(1, 31):
            fill(store, bytes(10), IDS_PER_RECORD, first=batch * 1000, batch=IDS_PER_RECORD)
            if batch == moment:
                again = task_id(bytes(10), 1 << 20)
                store.history.needed = {again}.__contains__
                use(store, (1).to_bytes(16, "big"), again, bytes(3000))
        functions = store.keys("functions")
        assert (1).to_bytes(16, "big") in functions and len(functions) < 300
        store.close()


def test_closures_in_a_loop_do_not_fill_the_store(monkeypatch):
    """What the program goes on using is there for a worker that has never run it, and what is gone is sent again."""
    monkeypatch.setattr(process, "SENT_REMEMBERED", 100)
    start_engine(store_limit=LIMIT)
    store = api.current_backend().session.store
    first = engine.remote(lambda: "first")
    assert engine.get(first.remote()) == "first"
    for start in range(0, 6000, 500):
        engine.get([engine.remote(lambda i=i, padding="x" * 1000: i).remote() for i in range(start, start + 500)])
    engine.get([echo.remote(i) for i in range(4000)])
    with StoreReader(store) as reader:
        wait_for(lambda: reader.flushed() > 4000, "history is cut")
        functions = sum(len(page) for page in reader._pages("functions", 1000))
    assert functions < 4000
    assert engine.get(first.options(runtime_env={"env_vars": {"A_WORKER": "new"}}).remote()) == "first"
    engine.shutdown()
