"""``rlflow.engine.util.queue``: order, room, waiting, and who may use it from where."""

import asyncio
import queue

import pytest
from waiting import DEADLINE, wait_for

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError, EngineStateError
from rlflow.engine.util.queue import Empty, Full, Queue

local_only = pytest.mark.parametrize("backend", ["local"], indirect=True)


@engine.remote
def produce(items, numbers):
    for number in numbers:
        items.put(number)


@engine.remote
def consume(items, count):
    return [items.get() for _ in range(count)]


def test_items_come_in_the_order_in_which_they_were_put(cluster):
    items = Queue()
    for i in range(10):
        items.put(i)
    assert items.qsize() == items.size() == len(items) == 10
    assert [items.get() for _ in range(10)] == list(range(10))
    assert items.empty() and not items.full()


def test_nothing_to_get_and_no_room(cluster):
    items = Queue(maxsize=1)
    with pytest.raises(Empty):
        items.get_nowait()
    with pytest.raises(Empty, match="within 0"):
        items.get(timeout=0.01)
    items.put("only", timeout=0)
    assert items.full()
    with pytest.raises(Full):
        items.put_nowait("second")
    with pytest.raises(Full, match="within 0"):
        items.put("second", timeout=0.01)
    assert items.get(timeout=0) == "only"
    assert issubclass(Empty, queue.Empty) and issubclass(Full, queue.Full)


def test_batches_are_taken_whole_or_not_at_all(cluster):
    items = Queue(maxsize=3)
    items.put_nowait_batch(range(2))
    with pytest.raises(Full, match="2 more"):
        items.put_nowait_batch([2, 3])
    with pytest.raises(Empty, match="3 items are wanted"):
        items.get_nowait_batch(3)
    assert items.get_nowait_batch(2) == [0, 1]
    assert items.get_nowait_batch(0) == []


def test_wrong_arguments_are_refused(cluster):
    items = Queue()
    for wrong in (lambda: items.get(timeout=-1), lambda: items.put(1, timeout=-1), lambda: items.get_nowait_batch(-1)):
        with pytest.raises(ValueError):
            wrong()
    for wrong in (lambda: items.get_nowait_batch("1"), lambda: items.put_nowait_batch(1), lambda: Queue("1")):
        with pytest.raises(TypeError):
            wrong()


def test_tasks_put_and_the_program_gets(cluster):
    items = Queue()
    engine.get([produce.remote(items, range(i, i + 5)) for i in (0, 5)])
    assert sorted(items.get() for _ in range(10)) == list(range(10))


def test_a_queue_in_an_event_loop(cluster):
    items = Queue(maxsize=2)

    async def both():
        await items.put_async(1)
        await items.put_async(2)
        with pytest.raises(Full):
            await items.put_async(3, block=False)
        got = [await items.get_async(), await items.get_async(timeout=DEADLINE)]
        with pytest.raises(Empty):
            await items.get_async(block=False)
        with pytest.raises(Empty):
            await items.get_async(timeout=0.01)
        return got

    assert asyncio.run(both()) == [1, 2]


def test_options_of_the_actor(cluster):
    items = Queue(actor_options={"name": "replies"})
    items.put(1)
    assert engine.get(engine.get_actor("replies").qsize.remote()) == 1


def test_after_shutdown(cluster):
    items = Queue()
    keeper = items.actor
    items.put(1)
    items.shutdown()
    items.shutdown(force=True)
    with pytest.raises(EngineStateError, match="shut down"):
        items.get()
    with pytest.raises(ActorDiedError):
        engine.get(keeper.qsize.remote())


@local_only
def test_whoever_waits_gets_what_comes(cluster):
    items = Queue()
    consumers = [consume.remote(items, 5) for _ in range(2)]
    produce.remote(items, range(10))
    one, other = engine.get(consumers, timeout=DEADLINE)
    assert sorted(one + other) == list(range(10))


@local_only
def test_whoever_waits_for_room_gets_it(cluster):
    items = Queue(maxsize=1)
    producer = produce.remote(items, range(10))
    assert [items.get(timeout=DEADLINE) for _ in range(10)] == list(range(10))
    engine.get(producer)


@local_only
def test_a_call_that_gave_up_takes_no_item(cluster):
    items = Queue()
    with pytest.raises(Empty):
        items.get(timeout=0.01)
    items.put("still there")
    assert items.get(timeout=DEADLINE) == "still there"


@local_only
def test_those_who_wait_hear_of_the_shutdown(cluster):
    items = Queue()
    consumer = consume.remote(items, 1)
    copy = Queue(actor_options={"name": "unrelated"})
    copy.shutdown()
    wait_for(lambda: engine.available_resources()["CPU"] == 2, "the consumer waits, and gives its CPU back")
    items.shutdown(force=True)
    with pytest.raises(ActorDiedError):
        engine.get(consumer)


@pytest.mark.parametrize("backend", ["inline"], indirect=True)
def test_inline_nobody_can_come_meanwhile(cluster):
    items = Queue(maxsize=1)
    with pytest.raises(RuntimeError, match="one call at a time"):
        items.get()
    items.put(1)
    with pytest.raises(RuntimeError, match="one call at a time"):
        items.put(2)
    assert items.get() == 1 and items.empty()
