"""A value that is not where its address says: whoever reads it asks the node for the current address.

The node has been told another address than everybody else has, as when an object has moved; and then none at all.
"""

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.exceptions import ObjectLostError
from rlflow.engine.serialization import dumps

CONTENT = np.arange(100_000)


@engine.remote
def total(array):
    return int(array.sum())


@engine.remote
def total_of(refs):
    return int(engine.get(refs[0]).sum())


@engine.remote
class Reader:
    async def total(self, array):
        return int(array.sum())

    async def total_of(self, refs):
        return int((await refs[0]).sum())


def moved() -> engine.ObjectRef:
    """A ref whose owner knows an address that leads nowhere, and the node another one."""
    backend = api.current_backend()
    ref = engine.put(CONTENT)
    entry = backend.objects.entries[ref.binary()]
    old = entry.value
    backend.post_node(m.Stored(ref.binary(), backend.storage.arena.write_to_disk(dumps(CONTENT), [])))
    engine.available_resources()  # the node has it
    segment = backend.storage.arena._memory[old.segment]
    segment._view[old.offset : old.offset + 8] = bytes(8)
    return ref


def test_the_owner_gets_it():
    ref = moved()
    assert np.array_equal(engine.get(ref, timeout=40), CONTENT)
    assert np.array_equal(engine.get([ref, engine.put(1), moved()])[2], CONTENT)


def test_it_is_an_argument_and_inside_of_one():
    ref = moved()
    assert engine.get([total.remote(ref), total_of.remote([ref])], timeout=40) == [CONTENT.sum()] * 2


def test_an_actor_on_an_event_loop_gets_it():
    reader = Reader.remote()
    ref = moved()
    results = [reader.total.remote(ref), reader.total_of.remote([ref]), reader.total_of.remote([moved()])]
    assert engine.get(results, timeout=40) == [CONTENT.sum()] * 3


def test_it_is_awaited_and_a_future():
    assert np.array_equal(moved().future().result(timeout=40), CONTENT)

    async def both():
        return await asyncio.gather(moved(), moved())

    assert all(np.array_equal(array, CONTENT) for array in asyncio.run(both()))


def test_it_is_lost():
    """Somebody has removed the file, and nobody has mapped it."""

    @engine.remote(max_retries=0)
    def make():
        return CONTENT

    ref = make.remote()
    engine.wait([ref])
    folder = Path(api.current_backend().session.shm)
    path = folder / api.current_backend().objects.entries[ref.binary()].value.segment
    path.rename(path.with_name("elsewhere"))
    try:
        with pytest.raises(ObjectLostError, match=ref.hex()):
            engine.get(ref, timeout=40)
        with pytest.raises(ObjectLostError, match=ref.hex()):
            engine.get(total.remote(ref), timeout=40)
    finally:
        path.with_name("elsewhere").rename(path)


def test_a_future_keeps_its_object_no_longer_than_it_lives():
    gc.disable()
    try:
        ref = engine.put(CONTENT)
        assert ref.future().result(timeout=40).sum() == CONTENT.sum()

        async def awaited(one):
            return (await one).sum()

        assert asyncio.run(awaited(ref)) == CONTENT.sum()
        del ref
        wait_for(lambda: not api.current_backend().questions.census()["objects of the process"], "it is freed")
    finally:
        gc.enable()
