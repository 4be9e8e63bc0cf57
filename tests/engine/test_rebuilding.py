"""Lost memory: objects are made again by running their tasks once more, or there is an error that says why not."""

import asyncio
import os
import random
import signal
import time

import numpy as np
import pytest
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import GetTimeoutError, ObjectLostError, TaskCancelledError, WorkerCrashedError
from rlflow.engine.node.ancestry import MOST_LINKS
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes, lose

SIZE = 4000


def note(folder, name):
    """Leaves a line in a file for each time that it is called."""
    with open(folder / name, "a") as file:
        file.write("ran\n")


def noted(folder, name):
    path = folder / name
    return len(path.read_text().splitlines()) if path.exists() else 0


@engine.remote
def ones(folder):
    note(folder, "ones")
    return np.ones(SIZE)


@engine.remote
def double(array, folder):
    note(folder, "double")
    return 2 * array


@engine.remote
def ping():
    return True


@engine.remote
def blocks():
    """How many values lie in the memory of a worker."""
    time.sleep(0.02)  # so that each of them gets one
    return api.current_backend().storage.arena.blocks()


@engine.remote
def total(array):
    return float(array.sum())


@engine.remote
def increased(array):
    return array + 1


def made(ref):
    """Waits until the object is there, without looking into it."""
    engine.wait([ref])
    return ref


def made_all(refs):
    engine.wait(refs, num_returns=len(refs))
    return refs


def address(ref):
    return api.current_backend().objects.entries[ref.binary()].value


def delete_segment(ref):
    """Of an object that came out of another one, and is asked for by the next ``get``."""
    made(ref)
    lose(ref)


def tracked_objects():
    return api.current_backend().questions.census()["tracked objects"]


def test_a_result_is_made_again(tmp_path):
    ref = made(ones.remote(tmp_path))
    lose(ref)
    assert engine.get(ref).sum() == SIZE
    assert noted(tmp_path, "ones") == 2
    assert engine.get(total.remote(ref)) == SIZE
    assert noted(tmp_path, "ones") == 2


def test_a_task_waits_for_its_argument(tmp_path):
    ref = made(ones.remote(tmp_path))
    lose(ref)
    assert engine.get(total.remote(ref)) == SIZE


def test_what_it_was_made_from_and_has_been_freed_is_made_again(tmp_path):
    ref = double.remote(double.remote(ones.remote(tmp_path), tmp_path), tmp_path)
    lose(made(ref))
    assert engine.get(ref).sum() == 4 * SIZE
    assert (noted(tmp_path, "ones"), noted(tmp_path, "double")) == (2, 4)


def test_a_second_loss_and_the_last(tmp_path):
    ref = made(ones.options(max_retries=2).remote(tmp_path))
    for _ in range(2):
        lose(ref)
        assert engine.get(ref).sum() == SIZE
    lose(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*ones.*has run 3 times \(max_retries=2\)"):
        engine.get(ref)
    assert noted(tmp_path, "ones") == 3


def test_what_the_driver_put_cannot_be_made_again():
    ref = engine.put(np.ones(SIZE))
    lose(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*put by the driver"):
        engine.get(ref)


def test_it_is_awaited_and_a_future(tmp_path):
    ref, other = made(ones.remote(tmp_path)), made(ones.remote(tmp_path))
    lose([ref, other])

    async def wait():
        return await ref

    assert other.future().result(timeout=40).sum() == SIZE
    assert asyncio.run(wait()).sum() == SIZE


def test_what_is_left_of_several_returns_stays_where_it_is(tmp_path):
    """Some were freed, one was lost, one is there, one is small."""

    @engine.remote(num_returns=4)
    def several():
        note(tmp_path, "several")
        return np.zeros(SIZE), np.ones(SIZE), np.full(6 << 17, 2.0), "small"

    for worker in engine_processes().workers:  # the first segment of a new one has 4 MB
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: engine.get(ping.remote()) and len(engine_processes().workers) == 2, "there are new ones")
    freed, lost, kept, small = made_all(several.remote())
    del freed
    where = address(kept)
    assert address(lost).segment != where.segment
    lose(lost)
    assert engine.get(lost).sum() == SIZE
    assert engine.get(small) == "small"
    assert address(kept) == where and engine.get(total.remote(kept)) == 2 * (6 << 17)
    assert noted(tmp_path, "several") == 2
    del lost, kept, small
    wait_for(lambda: not any(engine.get([blocks.remote() for _ in range(4)])), "second copies are freed like the first")


def test_what_is_lost_while_nobody_looks_is_noticed_by_the_one_who_needs_it(tmp_path):
    """A task's argument is there when it is submitted and gone when it runs; so is what that was made from."""
    first = ones.remote(tmp_path)
    second = double.remote(first, tmp_path)
    lose(made_all([first, second]))
    assert engine.get(total.remote(second)) == 2 * SIZE
    assert engine.get(first).sum() == SIZE


def test_small_arguments_come_from_the_control_store(tmp_path):
    @engine.remote
    def number():
        note(tmp_path, "number")
        return 3.0

    @engine.remote
    def filled(value, folder):
        return np.full(SIZE, value)

    ref = made(filled.remote(number.remote(), tmp_path))
    lose(ref)
    assert engine.get(ref).sum() == 3 * SIZE
    assert noted(tmp_path, "number") == 1


def test_refs_inside_arguments_are_made_again_when_they_are_asked_for(tmp_path):
    @engine.remote
    def sum_of(refs):
        return np.full(SIZE, engine.get(refs[0]).sum())

    unused, used = made_all([ones.remote(tmp_path), ones.remote(tmp_path)])
    ref = made(sum_of.remote([used, unused]))
    names = {address(each).segment for each in (used, unused, ref)}
    del used, unused
    wait_for(lambda: tracked_objects() == 1, "the arguments are freed")
    lose(ref)
    assert names
    assert engine.get(ref)[0] == SIZE
    assert noted(tmp_path, "ones") == 3


def test_a_value_with_refs_inside(tmp_path):
    @engine.remote
    def parts():
        return [ones.remote(tmp_path), np.ones(SIZE)]

    ref = made(parts.remote())
    inner = engine.get(ref)[0]
    lose(made(ref))
    assert engine.get(engine.get(ref)[0]).sum() == SIZE
    assert engine.get(inner).sum() == SIZE
    assert noted(tmp_path, "ones") <= 2  # the same worker may have run it, and then it was lost as well


def test_puts_of_a_task_are_made_again_by_it(tmp_path):
    @engine.remote
    def puts():
        note(tmp_path, "puts")
        return [engine.put(np.ones(SIZE)), engine.put(np.full(SIZE, 2.0))]

    first, second = engine.get(puts.remote())
    assert engine.get(total.remote(first)) == SIZE
    delete_segment(second)
    assert engine.get(first).sum() == SIZE
    assert engine.get(second).sum() == 2 * SIZE
    assert noted(tmp_path, "puts") == 2


def test_what_was_made_from_a_put_of_a_task(tmp_path):
    @engine.remote
    def parent():
        note(tmp_path, "parent")
        return [double.remote(engine.put(np.ones(SIZE)), tmp_path)]

    (ref,) = engine.get(parent.remote())
    assert engine.get(total.remote(ref)) == 2 * SIZE
    wait_for(lambda: tracked_objects() == 2, "the put is freed")
    delete_segment(ref)
    assert engine.get(ref).sum() == 2 * SIZE
    assert (noted(tmp_path, "parent"), noted(tmp_path, "double")) == (2, 2)


def test_a_parent_whose_children_were_freed(tmp_path):
    @engine.remote
    def parent():
        return engine.get(double.remote(ones.remote(tmp_path), tmp_path)) + 1

    ref = made(parent.remote())
    wait_for(lambda: tracked_objects() == 1, "the children are freed")
    lose(ref)
    assert engine.get(ref)[0] == 3
    assert (noted(tmp_path, "ones"), noted(tmp_path, "double")) == (2, 2)


def test_a_put_that_is_not_put_again(tmp_path):
    @engine.remote
    def puts_once():
        note(tmp_path, "puts")
        return [engine.put(np.ones(SIZE))] if noted(tmp_path, "puts") == 1 else []

    (ref,) = engine.get(puts_once.remote())
    engine.get(total.remote(ref))
    delete_segment(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*puts_once.*did not put it"):
        engine.get(ref)


def test_it_fails_when_it_is_run_again(tmp_path):
    @engine.remote
    def fails_then():
        note(tmp_path, "fails")
        if noted(tmp_path, "fails") > 1:
            raise ValueError("not again")
        return np.ones(SIZE)

    ref = made(fails_then.remote())
    following = made(double.remote(ref, tmp_path))
    lose([ref, following])
    with pytest.raises(ValueError, match="not again"):
        engine.get(ref)
    with pytest.raises(ValueError, match="not again"):
        engine.get(following)


def test_its_worker_dies_when_it_is_run_again(tmp_path):
    @engine.remote
    def dies_then(deaths):
        note(tmp_path, "dies")
        if 1 < noted(tmp_path, "dies") < 2 + deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ones(SIZE)

    ref = made(dies_then.remote(1))
    lose(ref)
    assert engine.get(ref).sum() == SIZE
    assert noted(tmp_path, "dies") == 3
    lose(ref)
    assert engine.get(ref).sum() == SIZE
    (tmp_path / "dies").unlink()
    ref = made(dies_then.options(max_retries=1).remote(5))
    lose(ref)
    with pytest.raises(WorkerCrashedError, match="dies_then"):
        engine.get(ref)
    assert noted(tmp_path, "dies") == 2


@engine.remote
class Maker:
    def __init__(self, array=None):
        self.array = array

    def make(self):
        return np.ones(SIZE)

    def put(self):
        return [engine.put(np.ones(SIZE))]

    def total(self):
        return float(self.array.sum())

    def total_of(self, array):
        return float(array.sum())


def test_what_an_actor_made_is_not_made_again():
    maker = Maker.remote()
    ref = made(maker.make.remote())
    (put,) = made_all(engine.get(maker.put.remote()))
    lose([ref, put])
    for each in (ref, put):
        with pytest.raises(ObjectLostError, match=rf"{each.hex()}.*Maker\.\w+"):
            engine.get(total.remote(each))


def test_an_actor_waits_for_its_argument(tmp_path):
    maker = Maker.remote()
    engine.get(maker.make.remote())
    ref = made(ones.remote(tmp_path))
    lose(ref)
    assert engine.get(maker.total_of.remote(ref)) == SIZE
    assert noted(tmp_path, "ones") == 2


@engine.remote
class Awaiting:
    async def total_of(self, array):
        return float(array.sum())

    async def total_inside(self, refs):
        return float((await refs[0]).sum())


@engine.remote(max_concurrency=2)
class Threaded:
    def total_of(self, array):
        return float(array.sum())

    def total_inside(self, refs):
        return float(engine.get(refs[0]).sum())


@pytest.mark.parametrize("kind", [Awaiting, Threaded])
def test_actors_that_run_several_calls_at_a_time(kind, tmp_path):
    actor = kind.remote()
    refs = made_all([ones.remote(tmp_path) for _ in range(4)])
    lose(refs)
    calls = [actor.total_of.remote(ref) for ref in refs[:2]] + [actor.total_inside.remote([ref]) for ref in refs[2:]]
    assert engine.get(calls) == [SIZE] * 4


def test_a_time_out_and_a_cancellation_while_it_is_made_again(tmp_path):
    @engine.remote
    def slow_again():
        note(tmp_path, "slow")
        while noted(tmp_path, "slow") > 1:
            time.sleep(0.01)
        return np.ones(SIZE)

    ref = made(slow_again.remote())
    lose(ref)
    with pytest.raises(GetTimeoutError):
        engine.get(ref, timeout=0.2)
    wait_for(lambda: noted(tmp_path, "slow") == 2, "it is run again")
    engine.cancel(ref)
    with pytest.raises(TaskCancelledError):
        engine.get(ref)


def test_the_argument_of_init_is_lost_before_the_restart(tmp_path):
    ref = made(ones.remote(tmp_path))
    maker = Maker.options(max_restarts=1).remote(ref)
    assert engine.get(maker.total.remote()) == SIZE
    lose(ref)
    del ref
    engine.kill(maker, no_restart=False)
    assert engine.get(maker.total.remote()) == SIZE
    assert noted(tmp_path, "ones") == 2


def test_arguments_of_a_replay_are_lost(tmp_path):
    @engine.remote(max_restarts=1, checkpoint_every=0)
    class Adder:
        def __init__(self):
            self.sum = 0.0

        def add(self, array):
            self.sum += float(array.sum())
            return self.sum

    adder = Adder.remote()
    refs = made_all([ones.remote(tmp_path) for _ in range(3)])
    assert engine.get([adder.add.remote(ref) for ref in refs])[-1] == 3 * SIZE
    lose(refs)
    engine.kill(adder, no_restart=False)
    assert engine.get(adder.add.remote(refs[0])) == 4 * SIZE


def test_an_argument_that_cannot_be_made_again_is_named():
    @engine.remote
    def made_from(array):
        return array + 1

    put = engine.put(np.ones(SIZE))
    name = put.hex()
    ref = made(made_from.remote(put))
    del put
    wait_for(lambda: tracked_objects() == 1, "the put is freed")
    lose(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*made_from.*needs ObjectRef\({name}\).*put by the driver"):
        engine.get(ref)


def test_a_chain_is_replayed_from_its_last_copy(tmp_path):
    """Of two thousand links; what the node remembers of them comes back within bounds as soon as copies are made."""
    ref = ones.remote(tmp_path)
    for link in range(1, 2001):
        ref = increased.remote(ref)
        if not link % 100:
            made(ref)
            wait_for(lambda: api.current_backend().questions.census()["ancestors"] <= 2 * MOST_LINKS, "few ancestors")
    lose(ref)
    assert engine.get(ref)[0] == 2001
    with StoreReader(api.current_backend().session.store) as reader:
        task = ref.binary()[:14].hex()
        events = [event.subject for event in reader.events() if event.kind == "rebuilt"]
    assert 0 < len(events) - events.index(task) <= 2 * MOST_LINKS
    assert noted(tmp_path, "ones") == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_graph_with_random_losses(seed, tmp_path):
    """Every value is right in the end, whatever was freed and lost meanwhile."""
    forever = {"max_retries": -1}

    @engine.remote(**forever)
    def leaf(number):
        return np.full(SIZE, number)

    @engine.remote(**forever)
    def sum_of(*arrays):
        return np.full(SIZE, sum(int(array[0]) for array in arrays) % 1000)

    @engine.remote(**forever)
    def sum_inside(refs):
        return engine.get(sum_of.remote(*refs)) + 1

    @engine.remote(**forever)
    def put_inside(array):
        return [engine.put(array + 2)]

    chance = random.Random(seed)
    alive = [(leaf.remote(number), number) for number in range(4)]
    for number in range(120):
        parts = [chance.choice(alive) for _ in range(chance.randint(1, 3))]
        refs, value = [ref for ref, _ in parts], sum(value for _, value in parts) % 1000
        what = chance.randrange(6)
        if what == 0:
            alive.append((leaf.remote(number), number))
        elif what == 1:
            alive.append((sum_of.remote(*refs), value))
        elif what == 2:
            alive.append((sum_inside.remote(refs), value + 1))
        elif what == 3:
            (put,) = engine.get(put_inside.remote(refs[0]))
            alive.append((put, parts[0][1] + 2))
        elif what == 4:
            assert engine.get(refs[0])[0] == parts[0][1]
        else:
            lose(made(refs[0]))
        while len(alive) > 12:
            del alive[chance.randrange(len(alive))]
    for ref, value in alive:
        assert (engine.get(ref) == value).all()
