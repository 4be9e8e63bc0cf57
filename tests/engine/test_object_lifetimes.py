"""How long objects and actors live: as long as anybody needs them, and not longer."""

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.testing import leak_check

CAPACITY = 100_000_000
LARGE = 625_000
"""Numbers in an array of 5 MB."""


@pytest.fixture(scope="module", autouse=True)
def no_leaks():
    """One check for all tests here, since they share an engine."""
    with leak_check():
        yield


@pytest.fixture(scope="module", autouse=True)
def shared_engine(no_leaks):
    start_engine(object_store_memory=CAPACITY)
    yield
    engine.shutdown()


@pytest.fixture(autouse=True)
def nothing_kept():
    """After every test no object, task or actor is alive."""
    with leak_check(running_engine=True):
        yield


@engine.remote
def make(n, value=0):
    return np.full(n, value, dtype=np.float64)


@engine.remote
def total(array):
    return float(array.sum())


@engine.remote
def total_of(refs):
    return float(sum(engine.get(ref).sum() for ref in refs))


@engine.remote
class Keeper:
    def keep(self, value):
        self.value = value

    def drop(self):
        self.value = None

    def total(self):
        value = self.value
        if isinstance(value, list):
            value = engine.get(value[0])
        return float(value.sum())

    def pid(self):
        return os.getpid()


def shared_memory():
    """Bytes of memory in all segments."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(api.current_backend().session.shm))


def objects():
    """How many objects there are in shared memory."""
    gc.collect()
    return api.current_backend().questions.census()["objects in shared memory"]


def wait_for_objects(count):
    wait_for(lambda: objects() == count, f"{count} objects in shared memory")


# --- memory is given back ---


def test_puts_reuse_their_memory():
    for n in range(200):
        ref = engine.put(np.full(LARGE, n, dtype=np.float64))
        assert engine.get(ref)[n] == n
    assert shared_memory() <= CAPACITY
    del ref
    wait_for_objects(0)


def test_results_reuse_their_memory():
    for n in range(200):
        array = engine.get(make.remote(LARGE, n))
        assert array[0] == array[-1] == n
    assert shared_memory() <= CAPACITY
    del array
    wait_for_objects(0)


def test_results_that_nobody_looks_at_are_given_back():
    for _ in range(20):
        refs = [make.remote(LARGE) for _ in range(5)]
        engine.wait(refs, num_returns=5)
    del refs
    wait_for_objects(0)


def test_results_whose_refs_went_before_they_came():
    for n in range(50):
        make.remote(LARGE, n)
    assert engine.get(total.remote(make.remote(10, 1))) == 10.0
    wait_for_objects(0)


def test_options_keep_no_object():
    """Nor does anything that a process remembers of them."""
    array = make.remote(LARGE)
    near = total.options(scheduling_strategy=engine.NearObject(array))
    assert engine.get(near.remote(array)) == 0.0


def test_arguments_live_until_the_task_has_them():
    for n in range(40):
        ref = total.remote(engine.put(np.full(LARGE, n, dtype=np.float64)))
        assert engine.get(ref) == n * LARGE
    large_argument = [total.remote(np.full(LARGE, n, dtype=np.float64)) for n in range(5)]
    assert engine.get(large_argument) == [n * LARGE for n in range(5)]
    del ref, large_argument
    wait_for_objects(0)


# --- arrays outlive their refs ---


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[1::2], lambda a: a.reshape(25, -1)[3], memoryview])
def test_arrays_stay_what_they_were(view):
    expected = np.random.default_rng(0).random(LARGE)
    ref = engine.put(expected)
    kept = view(engine.get(ref))
    del ref
    for n in range(40):
        engine.put(np.full(LARGE, n, dtype=np.float64))
    assert np.array_equal(np.asarray(kept), np.asarray(view(expected)))
    del kept
    wait_for_objects(0)


def test_results_stay_what_they_were():
    kept = [engine.get(make.remote(LARGE, n)) for n in range(8)]
    for n in range(40):
        engine.get(make.remote(LARGE, -n))
    assert all(np.array_equal(array, np.full(LARGE, n)) for n, array in enumerate(kept))


def test_one_array_of_many_keeps_their_object():
    ref = engine.put({"a": np.full(LARGE, 1.0), "b": np.full(LARGE, 2.0)})
    b = engine.get(ref)["b"]
    del ref
    for n in range(40):
        engine.put(np.full(LARGE, n, dtype=np.float64))
    assert objects() == 1 and np.array_equal(b, np.full(LARGE, 2.0))
    del b
    wait_for_objects(0)


# --- holders in other processes ---


@pytest.mark.parametrize("wrapped", [False, True], ids=["array", "ref"])
def test_what_an_actor_keeps_lives(wrapped):
    keeper = Keeper.remote()
    ref = engine.put(np.full(LARGE, 3.0))
    engine.get(keeper.keep.remote([ref] if wrapped else ref))
    del ref
    for n in range(40):
        engine.put(np.full(LARGE, n, dtype=np.float64))
    assert engine.get(keeper.total.remote()) == 3.0 * LARGE
    assert objects() == 1
    engine.get(keeper.drop.remote())
    wait_for_objects(0)


def test_what_an_actor_keeps_goes_with_it():
    keeper = Keeper.remote()
    engine.get(keeper.keep.remote([make.remote(LARGE, 1)]))
    assert objects() == 1
    del keeper
    wait_for_objects(0)


def test_a_borrower_that_dies_is_forgotten():
    keeper = Keeper.remote()
    ref = engine.put(np.full(LARGE, 3.0))
    engine.get(keeper.keep.remote([ref]))
    os.kill(engine.get(keeper.pid.remote()), signal.SIGKILL)
    assert engine.get(total.remote(ref)) == 3.0 * LARGE
    del ref
    wait_for_objects(0)


def test_what_a_dead_process_made_lives_on():
    @engine.remote
    class Maker:
        def make(self, value):
            return engine.put(np.full(LARGE, value)), np.full(LARGE, value + 1.0)

        def pid(self):
            return os.getpid()

    maker = Maker.remote()
    put, array = engine.get(maker.make.remote(5.0))
    os.kill(engine.get(maker.pid.remote()), signal.SIGKILL)
    assert np.array_equal(engine.get(put), np.full(LARGE, 5.0))
    assert engine.get(total.remote(put)) == 5.0 * LARGE
    del put  # the result, which the array belongs to, still holds it
    assert np.array_equal(array, np.full(LARGE, 6.0))
    del array
    wait_for_objects(0)


# --- refs on their way ---


def test_refs_in_data_hold():
    box = engine.put({"deep": [engine.put(np.full(LARGE, 2.0))]})
    for n in range(40):
        engine.put(np.full(LARGE, n, dtype=np.float64))
    assert engine.get(total_of.remote(engine.get(box)["deep"])) == 2.0 * LARGE
    inner = engine.get(box)["deep"][0]
    del box
    assert engine.get(inner)[0] == 2.0
    del inner
    wait_for_objects(0)


def test_refs_in_results_hold():
    @engine.remote
    def wrap(value):
        return [engine.put(np.full(LARGE, value)), make.remote(LARGE, value)]

    refs = engine.get(wrap.remote(4.0))
    for n in range(40):
        engine.put(np.full(LARGE, n, dtype=np.float64))
    assert [float(engine.get(ref)[0]) for ref in refs] == [4.0, 4.0]
    del refs
    wait_for_objects(0)


@engine.remote
def container_of(size, ballast):
    return [engine.put(i) for i in range(size)], np.zeros(ballast)


@pytest.mark.parametrize("size", [3, 3000])
@pytest.mark.parametrize("ballast", [0, LARGE])
def test_a_ref_out_of_a_container_outlives_it(size, ballast):
    container = container_of.remote(size, ballast)
    refs, _ = engine.get(container)
    last = refs[-1]
    del container, refs, _
    assert engine.get(total_of_numbers.remote([last])) == size - 1
    assert engine.get(last) == size - 1


@engine.remote
def total_of_numbers(refs):
    return sum(engine.get(refs))


def test_a_small_container_lives_as_long_as_its_refs_and_a_large_one_does_not():
    before = engine.available_resources()
    kept = []
    for ballast in (0, LARGE):
        container = container_of.remote(1, ballast)
        refs, _ = engine.get(container)
        kept += refs
        del container, refs, _
    wait_for(lambda: tracked()["objects in shared memory"] == 0, "the large container's memory is free")
    assert tracked()["tracked objects"] == 3, "two numbers, and the small container that holds one of them"
    assert engine.get(kept) == [0, 0] and engine.available_resources() == before


def test_refs_in_the_result_of_a_task_that_was_lent_some():
    """Its own puts were counted down with what it was lent, before the node heard of the result that holds them."""

    @engine.remote
    def relay(refs):
        return [engine.put(array + 1) for array in engine.get(refs)]

    (moved,) = engine.get(relay.remote([make.remote(LARGE, 1)]))
    assert engine.get(total.remote(moved), timeout=30) == 2.0 * LARGE


def test_refs_out_of_a_borrowed_container_hold_it():
    keeper = RefKeeper.remote()
    container = container_of.remote(2, 0)
    engine.get(keeper.keep_last_of.remote([container]))
    del container
    gc.collect()
    assert engine.get(keeper.value.remote()) == 1


@engine.remote
class RefKeeper:
    def keep_last_of(self, containers):
        refs, _ = engine.get(containers[0])
        self._ref = refs[-1]

    def value(self):
        return engine.get(self._ref)


def tracked():
    return api.current_backend().questions.census()


def test_refs_passed_on_to_grandchildren():
    @engine.remote
    def pass_on(refs, depth):
        return pass_on.remote(refs, depth - 1) if depth else total_of.remote(refs)

    ref = pass_on.remote([engine.put(np.full(LARGE, 1.0))], 3)
    while isinstance(ref, engine.ObjectRef):
        ref = engine.get(ref)
    assert ref == LARGE
    wait_for_objects(0)


def test_refs_between_actors():
    keepers = [Keeper.remote() for _ in range(2)]

    @engine.remote
    def hand_over(keepers, ref):
        for keeper in keepers:
            engine.get(keeper.keep.remote(ref))

    engine.get(hand_over.remote(keepers, [make.remote(LARGE, 2)]))
    assert engine.get([keeper.total.remote() for keeper in keepers]) == [2.0 * LARGE] * 2
    engine.get(keepers[0].drop.remote())
    assert engine.get(keepers[1].total.remote()) == 2.0 * LARGE
    engine.get(keepers[1].drop.remote())
    wait_for_objects(0)


def test_errors_keep_no_arguments():
    @engine.remote
    def refuse(array, refs):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        engine.get(refuse.remote(engine.put(np.ones(LARGE)), [engine.put(np.ones(LARGE))]))
    wait_for_objects(0)


# --- actors ---


def living():
    gc.collect()
    return api.current_backend().questions.census()["living actors"]


def test_an_actor_ends_with_its_last_handle():
    keeper = Keeper.remote()
    pid = engine.get(keeper.pid.remote())
    del keeper
    wait_for(lambda: living() == 0 and not Path(f"/proc/{pid}").exists(), "the actor ends")


def test_handles_inside_actors_count():
    inner = Keeper.remote()
    outer = Keeper.remote()
    engine.get(outer.keep.remote({"handle": inner}))
    pid = engine.get(inner.pid.remote())
    del inner
    engine.get([outer.pid.remote(), total.remote(np.ones(3))])
    assert living() == 2 and Path(f"/proc/{pid}").exists()
    engine.get(outer.drop.remote())
    wait_for(lambda: living() == 1 and not Path(f"/proc/{pid}").exists(), "the inner actor ends")
    del outer
    wait_for(lambda: living() == 0, "the outer actor ends")


def test_an_actor_ends_with_the_actor_that_holds_it():
    inner = Keeper.remote()
    outer = Keeper.remote()
    engine.get([outer.keep.remote({"handle": inner}), inner.pid.remote()])
    del inner, outer
    wait_for(lambda: living() == 0, "both actors end")
