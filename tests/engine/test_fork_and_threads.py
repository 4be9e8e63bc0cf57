"""A driver that forks, has threads, or runs an asyncio loop."""

import asyncio
import multiprocessing
import os
import sys
import threading

import pytest
from module_engine import no_leaks, shared_engine  # noqa: F401
from waiting import wait_for

from rlflow import engine
from rlflow.engine.exceptions import EngineStateError, TaskError


@engine.remote
def identity(value):
    return value


@engine.remote
def fail():
    raise ValueError("in the task")


@engine.remote
def wait_for_file(path):
    wait_for(path.exists, "the file")
    return str(path)


@engine.remote
class Counter:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value


def in_a_fork(function):
    """What ``function`` says in a forked child, and the child's exit code."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write_end, str(function()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def message_of(function):
    try:
        function()
    except EngineStateError as error:
        return str(error)
    return "nothing"


# --- forks ---


@pytest.mark.parametrize("use", ["put", "get", "submit", "call", "wait", "future", "resources"])
def test_a_forked_child_is_told(use):
    ref = identity.remote(1)
    counter = Counter.remote()
    assert engine.get([ref, counter.add.remote()]) == [1, 1]
    uses = {
        "put": lambda: engine.put(1),
        "get": lambda: engine.get(ref),
        "submit": lambda: identity.remote(2),
        "call": lambda: counter.add.remote(),
        "wait": lambda: engine.wait([ref]),
        "future": lambda: ref.future().result(timeout=5),
        "resources": engine.cluster_resources,
    }
    said, code = in_a_fork(lambda: message_of(uses[use]))
    assert code == 0
    assert "forked" in said and str(os.getpid()) in said
    assert engine.get([identity.remote(2), counter.add.remote()]) == [2, 2]


def test_a_child_that_drops_refs_and_shuts_down_harms_nobody():
    refs = [identity.remote(i) for i in range(10)]
    large = engine.put(bytes(1_000_000))

    def child():
        refs.clear()
        nonlocal large
        del large
        engine.shutdown()
        return "done"

    assert in_a_fork(child) == ("done", 0)
    assert engine.get(refs) == list(range(10))
    assert engine.get(large) == bytes(1_000_000)


def test_a_child_may_start_an_engine_of_its_own():
    def child():
        assert not engine.is_initialized()
        engine.init(num_cpus=1)
        value = engine.get(identity.remote("own"))
        engine.shutdown()
        return value

    assert in_a_fork(child) == ("own", 0)
    assert engine.get(identity.remote("the parent's")) == "the parent's"


def test_a_child_that_ends_as_programs_do():
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            sys.exit(5)
        finally:
            os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert engine.get(identity.remote("unharmed")) == "unharmed"


def test_multiprocessing_with_fork():
    """As a DataLoader does it; its children end with the interpreter's usual ceremony."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
        assert engine.get(identity.remote(1)) == 1
    assert engine.get(identity.remote(2)) == 2


# --- threads ---


def run_threads(function, count):
    """Runs ``function(i)`` in threads; what any of them raises."""
    errors = []

    def body(i):
        try:
            function(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert errors == []


def test_threads_submit_and_get_at_once():
    def body(i):
        for round_ in range(10):
            values = [(i, round_, n) for n in range(20)]
            assert engine.get([identity.remote(value) for value in values]) == values

    run_threads(body, 6)


def test_threads_put_wait_and_call_at_once():
    counter = Counter.remote()
    seen = []

    def body(i):
        for n in range(10):
            ref = engine.put([i, n] * 10_000)
            done, pending = engine.wait([identity.remote(ref), identity.remote(n)], num_returns=2)
            assert pending == [] and engine.get(done[0]) == [i, n] * 10_000
            seen.append(engine.get(counter.add.remote()))

    run_threads(body, 4)
    assert sorted(seen) == list(range(1, 41))


def test_a_thread_waits_while_others_finish(tmp_path):
    """Who waits for something that is not ready does not keep the others from their results."""
    slow = wait_for_file.remote(tmp_path / "go")
    got = []
    threads = [threading.Thread(target=lambda: got.append(engine.get(slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(50):
        assert engine.get(identity.remote(n)) == n
    assert got == []
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join(timeout=60)
    assert got == [str(tmp_path / "go")] * 3


def test_get_in_a_thread_while_the_main_thread_computes():
    got = []
    thread = threading.Thread(target=lambda: got.append(engine.get([identity.remote(n) for n in range(200)])))
    thread.start()
    while thread.is_alive():
        sum(range(1000))
    assert got == [list(range(200))]


# --- futures ---


def test_a_future_resolves_while_nobody_waits_in_the_engine():
    resolved = threading.Event()
    future = identity.remote("value").future()
    future.add_done_callback(lambda _: resolved.set())
    assert resolved.wait(60)
    assert future.result() == "value"


def test_a_future_resolves_while_the_main_thread_computes():
    future = identity.remote("value").future()
    while not future.done():
        sum(range(1000))
    assert future.result() == "value"


def test_futures_carry_errors():
    error = fail.remote().future().exception(timeout=60)
    assert isinstance(error, TaskError) and isinstance(error, ValueError)


def test_futures_of_what_is_there_already():
    ref = engine.put(3)
    assert ref.future().result(timeout=0) == 3
    done = identity.remote(4)
    engine.wait([done])
    assert done.future().result(timeout=60) == 4


# --- asyncio ---


def test_await():
    async def main():
        counter = Counter.remote()
        values = await asyncio.gather(*(identity.remote(n) for n in range(50)))
        calls = [await counter.add.remote() for _ in range(3)]
        with pytest.raises(ValueError, match="in the task"):
            await fail.remote()
        return values, calls

    assert asyncio.run(main()) == (list(range(50)), [1, 2, 3])


def test_await_leaves_the_loop_free(tmp_path):
    async def main():
        waiting = asyncio.ensure_future(asyncio.wrap_future(wait_for_file.remote(tmp_path / "go").future()))
        steps = 0
        while not waiting.done():
            steps += 1
            await asyncio.sleep(0)
            if steps == 100:
                (tmp_path / "go").touch()
        return steps, await waiting

    steps, path = asyncio.run(main())
    assert steps > 100 and path == str(tmp_path / "go")


def test_await_beside_blocking_gets_in_threads():
    async def main():
        loop = asyncio.get_running_loop()
        blocking = [loop.run_in_executor(None, engine.get, identity.remote(n)) for n in range(10)]
        return await asyncio.gather(*blocking, *(identity.remote(n) for n in range(10)))

    assert asyncio.run(main()) == [*range(10), *range(10)]
