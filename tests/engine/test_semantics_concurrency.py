"""Actors that run several calls at a time: in threads, and on an event loop."""

import asyncio
import threading

import pytest
from waiting import wait_for

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError, PendingCallsLimitExceeded, TaskError, UnsupportedError


@engine.remote
class Async:
    def __init__(self, start=0):
        self.value = start
        self.arrived = []

    async def add(self, n):
        await asyncio.sleep(0)
        self.value += n
        return self.value

    async def note(self, n):
        self.arrived.append(n)
        await asyncio.sleep(0)

    async def sum_of(self, refs):
        return sum(await asyncio.gather(*refs))

    async def fail(self, text):
        await asyncio.sleep(0)
        raise KeyError(text)

    def plain(self):
        return self.value, self.arrived

    async def task_ids(self):
        first = engine.get_runtime_context().get_task_id()
        await asyncio.sleep(0)
        return first, engine.get_runtime_context().get_task_id()

    async def blocking(self, refs):
        return engine.get(refs[0])

    async def children(self):
        return await square.remote(3), await square.remote(4)

    async def leave(self):
        engine.exit_actor()


@engine.remote
def square(x):
    return x * x


@engine.remote(max_concurrency=4)
class Threaded:
    def __init__(self):
        self.barrier = threading.Barrier(4)
        self.names = []

    def meet(self, n):
        self.barrier.wait(30)
        return n

    def where(self):
        return threading.current_thread().name, engine.get_runtime_context().get_task_id()

    def child(self, x):
        return engine.get(square.remote(x))

    def put(self, x):
        return [engine.put(x)]

    def fail(self):
        raise ValueError("here")


@pytest.mark.usefixtures("cluster")
class TestAsync:
    def test_results_errors_and_plain_methods(self):
        actor = Async.remote(1)
        assert engine.get([actor.add.remote(n) for n in range(5)])[-1] == 11
        assert engine.get(actor.plain.remote()) == (11, [])
        with pytest.raises(TaskError, match="lost") as caught:
            engine.get(actor.fail.remote("lost"))
        assert isinstance(caught.value, KeyError)
        assert engine.get(actor.add.remote(0)) == 11, "it goes on after a failed call"

    def test_calls_begin_in_order(self):
        actor = Async.remote()
        engine.get([actor.note.remote(n) for n in range(200)])
        assert engine.get(actor.plain.remote())[1] == list(range(200))

    def test_refs_can_be_awaited(self):
        actor = Async.remote()
        refs = [square.remote(i) for i in range(20)]
        assert engine.get(actor.sum_of.remote(refs)) == sum(i * i for i in range(20))
        assert engine.get(actor.sum_of.remote([engine.put(1), engine.put(2)])) == 3
        assert engine.get(actor.children.remote()) == (9, 16)

    def test_a_failed_ref_raises_where_it_is_awaited(self):
        actor = Async.remote()
        with pytest.raises(KeyError, match="inner"):
            engine.get(actor.sum_of.remote([actor.fail.remote("inner")]))

    def test_each_coroutine_knows_its_own_task(self):
        actor = Async.remote()
        refs = [actor.task_ids.remote() for _ in range(10)]
        for ref, (before, after) in zip(refs, engine.get(refs), strict=True):
            assert before == after == ref.hex()[:28]

    def test_get_inside_a_coroutine(self):
        actor = Async.remote()
        assert engine.get(actor.blocking.remote([square.remote(5)])) == 25
        assert engine.get(actor.add.remote(1)) == 1

    def test_the_driver_can_await(self):
        actor = Async.remote()

        async def main():
            assert await actor.add.remote(2) == 2
            assert await asyncio.gather(*[square.remote(i) for i in range(300)]) == [i * i for i in range(300)]
            with pytest.raises(KeyError):
                await actor.fail.remote("x")
            slow = asyncio.wrap_future(square.remote(3).future())
            return await slow

        assert asyncio.run(main()) == 9

    def test_exit_actor(self):
        actor = Async.remote()
        with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
            engine.get(actor.leave.remote())
        with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
            engine.get(actor.add.remote(1))

    def test_generators_are_refused_by_name(self):
        class Streams:
            async def items(self):
                yield 1

        with pytest.raises(UnsupportedError, match="async generators"):
            engine.remote(Streams).remote()


@pytest.mark.usefixtures("cluster")
class TestThreaded:
    def test_results_errors_children_and_puts(self):
        actor = Threaded.remote()
        assert engine.get([actor.child.remote(i) for i in range(20)]) == [i * i for i in range(20)]
        assert [engine.get(refs[0]) for refs in engine.get([actor.put.remote(i) for i in range(20)])] == list(range(20))
        with pytest.raises(ValueError, match="here"):
            engine.get(actor.fail.remote())

    def test_each_thread_knows_its_own_task(self):
        actor = Threaded.remote()
        refs = [actor.where.remote() for _ in range(50)]
        for ref, (_, task) in zip(refs, engine.get(refs), strict=True):
            assert task == ref.hex()[:28]

    def test_wrong_numbers_are_refused(self):
        for wrong in (0, -3, 1.5):
            with pytest.raises((TypeError, ValueError), match="max_concurrency"):
                Threaded.options(max_concurrency=wrong)


class TestTogether:
    """What one thread cannot do."""

    @pytest.fixture(autouse=True)
    def local(self, cluster):
        if cluster == "inline":
            pytest.skip("the inline engine runs one call at a time")

    def test_threads_overlap(self):
        actor = Threaded.remote()
        assert engine.get([actor.meet.remote(n) for n in range(8)]) == list(range(8))

    def test_coroutines_overlap_and_can_wait_for_one_another(self):
        @engine.remote
        class Event:
            def __init__(self):
                self.event = asyncio.Event()
                self.waiting = 0

            async def wait(self):
                self.waiting += 1
                await self.event.wait()
                return "set"

            async def count(self):
                return self.waiting

            async def set(self):
                self.event.set()

        actor = Event.remote()
        waiting = [actor.wait.remote() for _ in range(5)]
        wait_for(lambda: engine.get(actor.count.remote()) == 5, "all five wait")
        engine.get(actor.set.remote())
        assert engine.get(waiting) == ["set"] * 5

    def test_max_concurrency_bounds_coroutines(self):
        @engine.remote(max_concurrency=2)
        class Bounded:
            def __init__(self):
                self.now = self.most = 0

            async def work(self):
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(0.01)
                self.now -= 1
                return self.most

        actor = Bounded.remote()
        assert max(engine.get([actor.work.remote() for _ in range(10)])) == 2

    def test_awaiting_does_not_hold_up_others(self):
        actor, gate = Async.remote(), Gate.remote()
        blocked = actor.sum_of.remote([gate.passed.remote()])
        assert engine.get(actor.add.remote(7)) == 7
        gate.open.remote()
        assert engine.get(blocked) == 1

    def test_an_actor_with_no_handles_finishes_what_it_runs(self):
        gate = Gate.remote()
        results = [gate.passed.remote() for _ in range(3)]
        opened = gate.open.remote()
        del gate
        assert engine.get([*results, opened]) == [1, 1, 1, None]

    def test_a_result_leaves_though_its_thread_is_in_the_next_call_already(self):
        actor = Threaded.remote()
        for _ in range(10):
            quick, *blocked = [actor.where.remote(), *(actor.meet.remote(n) for n in range(3))]
            engine.get(quick)
            assert engine.get([*blocked, actor.meet.remote(3)]) == [0, 1, 2, 3]

    def test_threads_of_a_dead_actor_end_with_it(self):
        actor = Threaded.remote()
        stuck = [actor.meet.remote(n) for n in range(3)]
        engine.kill(actor)
        for ref in stuck:
            with pytest.raises(ActorDiedError):
                engine.get(ref)

    def test_calls_past_the_limit_are_refused(self):
        gate = Gate.options(max_pending_calls=3).remote()
        pending = [gate.passed.remote() for _ in range(3)]
        with pytest.raises(PendingCallsLimitExceeded, match="max_pending_calls is 3"):
            gate.passed.remote()
        other = engine.get(passes_through.remote([gate]))
        assert other == "opened"
        assert engine.get(pending) == [1, 1, 1]
        assert engine.get(gate.passed.remote()) == 1


@engine.remote
def passes_through(handles):
    engine.get(handles[0].open.remote())
    return "opened"


@engine.remote
class Gate:
    def __init__(self):
        self.event = asyncio.Event()

    async def passed(self):
        await self.event.wait()
        return 1

    async def open(self):
        self.event.set()


def test_a_coroutine_that_waits_for_a_later_call_is_told_so_inline(backend):
    if backend != "inline":
        pytest.skip("the other engine waits")
    engine.init(backend="inline")
    gate = Gate.remote()
    with pytest.raises(RuntimeError, match="the inline engine runs one call at a time"):
        engine.get(gate.passed.remote())

