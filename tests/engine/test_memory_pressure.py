"""A store that is too small for what lives: who leaves memory and who stays, whoever reads, dies or is killed."""

import gc
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
from restarting import kill_daemon
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.store.segment import is_on_disk, owner_of
from rlflow.engine.testing import leak_check
from rlflow.engine.testing.faults import inject, kill_at_message

CAPACITY = 16_000_000
PIECE = 1_000_000


@pytest.fixture(autouse=True)
def no_leaks():
    with leak_check():
        yield
        engine.shutdown()


def content(seed: int, size: int = PIECE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def is_content(array: np.ndarray, seed: int, size: int = PIECE) -> bool:
    return np.array_equal(array, content(seed, size))


def lies_on_disk(ref: engine.ObjectRef) -> bool:
    """Where it is now, which its owner learns by reading it."""
    assert engine.get(ref) is not None
    return is_on_disk(api.current_backend().objects.entries[ref.binary()].value.segment)


def on_disk() -> list[str]:
    return os.listdir(api.current_backend().session.spill)


def in_memory() -> int:
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(api.current_backend().session.shm))


def all_is_free() -> bool:
    gc.collect()
    census = api.current_backend().questions.census()
    return not any(census.values()) and not on_disk()


@engine.remote
def make(seed, size=PIECE):
    return content(seed, size)


@engine.remote
def right(array, seed, size=PIECE):
    return is_content(array, seed, size)


@engine.remote
def blocks():
    return api.current_backend().storage.arena.blocks()


@engine.remote
class Keeper:
    """Holds arrays over memory that others wrote."""

    def __init__(self):
        self.arrays = {}

    def keep(self, array, seed):
        self.arrays[seed] = array

    def are_right(self):
        return all(is_content(array, seed) for seed, array in self.arrays.items())

    def pid(self):
        return os.getpid()

    def let_go(self):
        self.arrays.clear()


def test_what_was_used_last_stays_in_memory():
    start_engine(object_store_memory=CAPACITY)
    hot = engine.put(content(0))
    refs = []
    for i in range(1, 40):
        refs.append(engine.put(content(i)))
        assert engine.get(right.remote(hot, 0))
    assert in_memory() <= CAPACITY
    assert not lies_on_disk(hot)
    places = [lies_on_disk(ref) for ref in refs]
    assert places == sorted(places, reverse=True), "the older ones are on disk"
    assert places[20] and not places[-1]
    assert all(is_content(engine.get(ref), i) for i, ref in enumerate(refs, 1))


def test_what_somebody_reads_stays_where_it_is():
    start_engine(object_store_memory=CAPACITY)
    keeper = Keeper.remote()
    kept = [engine.put(content(i)) for i in range(4)]
    mine = engine.put(content(4))
    array = engine.get(mine)
    engine.get([keeper.keep.remote(ref, i) for i, ref in enumerate(kept)])
    others = [engine.put(content(i)) for i in range(5, 40)]
    assert not any(lies_on_disk(ref) for ref in [*kept, mine])
    assert engine.get(keeper.are_right.remote()) and is_content(array, 4)
    del array
    engine.get(keeper.let_go.remote())
    others += [engine.put(content(i)) for i in range(40, 60)]
    wait_for(lambda: all(lies_on_disk(ref) for ref in others[:20]), "what is read no more has gone")


def test_when_all_that_fits_is_read_the_rest_goes_to_files():
    start_engine(object_store_memory=CAPACITY)
    refs = [engine.put(content(i)) for i in range(14)]
    held = engine.get(refs)
    more = [engine.put(content(i)) for i in range(14, 40)]
    assert sum(lies_on_disk(ref) for ref in more) > 20
    assert all(is_content(array, i) for i, array in enumerate([*held, *engine.get(more)]))


def test_what_a_dead_process_made_goes_to_disk_as_well():
    start_engine(object_store_memory=CAPACITY)
    refs = [make.options(max_calls=1).remote(i) for i in range(10)]
    engine.wait(refs, num_returns=10)
    names = {api.current_backend().objects.entries[ref.binary()].worker for ref in refs}
    assert len(names) == 10
    more = [engine.put(content(i)) for i in range(10, 40)]
    assert all(lies_on_disk(ref) for ref in refs)
    shm = Path(api.current_backend().session.shm)
    wait_for(lambda: {owner_of(path.name) for path in shm.iterdir()} == {"driver"}, "their memory is free")
    assert all(is_content(array, i) for i, array in enumerate(engine.get([*refs, *more])))


@pytest.mark.parametrize("message", [m.WhoReads, m.Spill])
def test_the_daemon_is_killed_in_the_middle_of_a_round(message):
    with inject(kill_at_message(message, sender="node*", nth=2)) as faults:
        start_engine(object_store_memory=CAPACITY)
        refs = [engine.put(content(i)) for i in range(12)]
        made = [make.remote(i) for i in range(12, 24)]
        more = [engine.put(content(i)) for i in range(24, 40)]
        checks = [right.remote(ref, i) for i, ref in enumerate([*refs, *made, *more])]
        assert all(engine.get(checks, timeout=60))
        assert faults.happened() == [1]
    assert all(is_content(array, i) for i, array in enumerate(engine.get([*refs, *made, *more])))
    del refs, made, more, checks
    wait_for(all_is_free, "all is free")


def test_what_was_about_to_leave_when_the_daemon_was_killed_stays():
    with inject(kill_at_message(m.WhoReads, sender="node*")) as faults:
        start_engine(object_store_memory=CAPACITY)
        refs = [engine.put(content(i)) for i in range(13)]
        wait_for(lambda: faults.happened() == [1], "the daemon is killed")
        del refs[6:]
        assert all(is_content(array, i) for i, array in enumerate(engine.get(refs)))
        assert not on_disk()


def test_the_daemon_is_killed_before_it_says_what_is_free():
    with inject(kill_at_message(m.FreeBlocks, sender="node*", receiver="w*")) as faults:
        start_engine(object_store_memory=CAPACITY)
        ref = make.remote(1)
        engine.wait([ref])
        del ref
        wait_for(lambda: faults.happened() == [1], "the daemon is killed")
        wait_for(all_is_free, "the next one looks after it")
        arenas = [blocks.remote() for _ in range(8)]
        assert engine.get(arenas) == [0] * 8


def test_a_process_is_killed_as_it_copies():
    with inject(kill_at_message(m.Spilled, sender="w*")) as faults:
        start_engine(object_store_memory=CAPACITY)
        refs = [make.remote(i) for i in range(30)]
        assert all(engine.get([right.remote(ref, i) for i, ref in enumerate(refs)], timeout=60))
        assert faults.happened() == [1]
    del refs
    wait_for(all_is_free, "all is free")


def test_a_process_that_does_not_answer_keeps_nobody_from_reading_or_writing():
    start_engine(object_store_memory=CAPACITY)
    keeper = Keeper.remote()
    pid = engine.get(keeper.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        refs = [engine.put(content(i)) for i in range(30)]
        assert all(engine.get([right.remote(ref, i) for i, ref in enumerate(refs)], timeout=60))
        assert all(is_content(array, i) for i, array in enumerate(engine.get(refs)))
        assert not any(lies_on_disk(ref) for ref in refs[:10]), "it may read those"
    finally:
        os.kill(pid, signal.SIGCONT)
    refs += [engine.put(content(i)) for i in range(30, 50)]
    wait_for(lambda: any(lies_on_disk(ref) for ref in refs[:10]), "it has answered, and there is room again")
    assert all(is_content(array, i) for i, array in enumerate(engine.get(refs)))


def test_a_disk_without_room_for_what_shall_leave_memory():
    """All stays in memory, and what finds no room there either is an error; then there is room again."""
    start_engine(object_store_memory=CAPACITY)
    folder = Path(api.current_backend().session.spill)
    folder.rename(folder.with_name("elsewhere"))
    try:
        refs = [engine.put(content(i)) for i in range(15)]
        with pytest.raises(engine.exceptions.ObjectStoreFullError, match=r"1\.0 MB.*16 MB.*object_store_memory"):
            refs += [engine.put(content(i)) for i in range(15, 17)]
        assert all(is_content(array, i) for i, array in enumerate(engine.get(refs)))
    finally:
        folder.with_name("elsewhere").rename(folder)
    refs += [engine.put(content(i)) for i in range(15, 40)]
    assert all(is_content(array, i) for i, array in enumerate(engine.get(refs)))


@engine.remote
class Client:
    """One of several processes that put, get, hold, pass on and drop at random, and compare every byte."""

    def __init__(self, name, seed):
        self.name = name
        self.rng = random.Random(seed)
        self.known = []
        self.held = []
        self.made = 0

    def take(self, ref, seed, size):
        self.known.append((ref[0], seed, size))

    def act(self, peers, steps):
        for _ in range(steps):
            self.one_step(peers)
        return all(is_content(*each) for each in self.held)

    def one_step(self, peers):
        rng = self.rng
        choice = rng.random()
        if choice < 0.4 or not self.known:
            size = rng.choice([9_000, 40_000, 300_000, PIECE])
            seed = self.name * 100_000 + self.made
            self.made += 1
            self.known.append((engine.put(content(seed, size)), seed, size))
        elif choice < 0.6:
            ref, seed, size = rng.choice(self.known)
            array = engine.get(ref)
            assert is_content(array, seed, size)
            if rng.random() < 0.3:
                self.held.append((array, seed, size))
        elif choice < 0.7:
            ref, seed, size = rng.choice(self.known)
            rng.choice(peers).take.remote([ref], seed, size)
        elif choice < 0.8:
            ref, seed, size = rng.choice(self.known)
            assert engine.get(right.remote(ref, seed, size))
        elif choice < 0.95:
            del self.known[rng.randrange(len(self.known))]
        elif self.held:
            array = self.held.pop(rng.randrange(len(self.held)))
            assert is_content(*array)

    def drop_all(self):
        self.known.clear()
        self.held.clear()


@pytest.mark.parametrize("seed", range(3))
def test_several_processes_put_get_hold_pass_on_and_drop(seed):
    capacity = 6_000_000
    start_engine(object_store_memory=capacity)
    clients = [Client.options(num_cpus=0).remote(i, seed * 10 + i) for i in range(3)]
    rounds = [client.act.remote(clients, 60) for _ in range(2) for client in clients]
    refs = [(engine.put(content(i, 200_000)), i) for i in range(40)]
    assert on_disk()
    assert all(engine.get(rounds, timeout=60))
    assert all(is_content(engine.get(ref), i, 200_000) for ref, i in refs)
    if seed == 2:
        kill_daemon()
    engine.get([client.drop_all.remote() for client in clients])
    del clients, rounds, refs
    wait_for(all_is_free, "all is free")
    wait_for(lambda: in_memory() <= capacity, "memory is within its bound")
