"""More than shared memory has room for: it goes to disk, is read as before, and leaves nothing behind."""

import gc
import os
import random
from pathlib import Path

import numpy as np
import pytest
from drivers import Driver
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ObjectStoreFullError
from rlflow.engine.testing import leak_check

CAPACITY = 20_000_000
PIECE = 2_000_000
PIECES = 30
"""Three times the store."""


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
    """After every test no object is alive and no file on disk."""
    with leak_check(running_engine=True):
        yield
    wait_for(lambda: not on_disk(), "files of dropped objects removed")


def on_disk() -> list[Path]:
    return list(Path(api.current_backend().session.spill).iterdir())


def in_memory() -> int:
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(api.current_backend().session.shm))


def content(seed: int, size: int = PIECE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@engine.remote
def make(seed, size=PIECE):
    return content(seed, size)


@engine.remote
def is_right(array, seed, size=PIECE):
    return bool(np.array_equal(array, content(seed, size)))


@engine.remote
def turned(array):
    return np.ascontiguousarray(array[::-1])


def test_puts_of_three_times_the_store():
    refs = [engine.put(content(i)) for i in range(PIECES)]
    assert on_disk() and in_memory() <= CAPACITY
    assert all(engine.get([is_right.remote(ref, i) for i, ref in enumerate(refs)]))
    for i, ref in enumerate(refs):
        assert np.array_equal(engine.get(ref), content(i))


def test_results_of_three_times_the_store_while_readers_hold_them_all():
    refs = [make.remote(i) for i in range(PIECES)]
    held = engine.get(refs)
    assert on_disk()
    assert all(np.array_equal(array, content(i)) for i, array in enumerate(held))
    del refs
    gc.collect()
    assert all(np.array_equal(array, content(i)) for i, array in enumerate(held))


def test_memory_is_used_again_when_it_is_free_again():
    refs = [engine.put(content(i)) for i in range(PIECES)]
    assert on_disk()
    refs.clear()
    gc.collect()
    wait_for(lambda: not api.current_backend().storage.arena.blocks(), "blocks free")
    ref = engine.put(content(1))
    assert not on_disk()
    assert np.array_equal(engine.get(ref), content(1))


def test_an_object_larger_than_the_store():
    size = 2 * CAPACITY
    assert np.array_equal(engine.get(engine.put(content(1, size))), content(1, size))
    assert engine.get(is_right.remote(make.remote(2, size), 2, size))


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_put_turned_got_and_dropped_keeps_its_bytes(seed):
    rng = random.Random(seed)
    live: list[tuple[engine.ObjectRef, np.ndarray]] = []
    for step in range(60):
        size = rng.choice([9_000, 300_000, PIECE, 3 * PIECE])
        choice = rng.random()
        if choice < 0.4 or not live:
            live.append((engine.put(content(step, size)), content(step, size)))
        elif choice < 0.6:
            live.append((make.remote(step, size), content(step, size)))
        elif choice < 0.75:
            ref, expected = rng.choice(live)
            live.append((turned.remote(ref), expected[::-1]))
        elif choice < 0.9:
            del live[rng.randrange(len(live))]
        else:
            ref, expected = rng.choice(live)
            assert np.array_equal(engine.get(ref), expected)
    for ref, expected in live:
        assert np.array_equal(engine.get(ref), expected)


def test_what_finds_no_room_on_disk_either_is_the_error_of_put_and_task():
    folder = Path(api.current_backend().session.spill)
    folder.rename(folder.with_name("elsewhere"))
    try:
        with pytest.raises(ObjectStoreFullError, match=r"40\.\d MB.*20 MB.*object_store_memory"):
            engine.put(content(1, 2 * CAPACITY))
        with pytest.raises(ObjectStoreFullError, match="object_spilling_directory"):
            engine.get(make.remote(1, 2 * CAPACITY))
    finally:
        folder.with_name("elsewhere").rename(folder)
    assert engine.get(is_right.remote(make.remote(1), 1))


def test_the_folder_of_ones_choice_is_empty_after_the_driver_was_killed(tmp_path):
    with Driver(f"""
        start(object_store_memory=4_000_000, object_spilling_directory={str(tmp_path)!r})
        held = [engine.put(np.ones(1_000_000)), identity.remote(np.ones(1_000_000))]
        engine.get(held)
        say("spilled")
        time.sleep(1000)
    """) as driver:
        driver.started()
        assert driver.line() == "spilled"
        assert len(list(tmp_path.glob("rlflow-*/*"))) >= 2
        driver.process.kill()
        driver.leaves_nothing()
    wait_for(lambda: not any(tmp_path.iterdir()), "spilled objects removed")


def test_why_says_where_a_value_is_now():
    """Also of one that was in memory when its owner heard of it, and has gone to disk since."""
    refs = [engine.put(content(seed)) for seed in range(PIECES)]
    found = [str(engine.why(ref)) for ref in refs]
    assert all("is there: 2 MB, " in line for line in found)
    assert {"on disk" in line for line in found} == {True, False}
