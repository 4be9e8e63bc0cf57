"""Workers killed at random, for a few seconds: every result is right, and nothing is held in the end."""

import contextlib
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from waiting import all_resources_free, start_engine, wait_for

from rlflow import engine
from rlflow.engine.exceptions import EngineError
from rlflow.engine.testing import engine_processes, leak_check

SECONDS = 3.0
PAUSE = 0.04


@pytest.fixture
def chaos():
    """An engine, and a thread that kills one of its workers every now and then."""
    start_engine()
    rng = random.Random(20)
    ends = threading.Event()
    killed = []

    def kill_workers():
        while not ends.wait(rng.uniform(0, 2 * PAUSE)):
            workers = engine_processes().workers
            if workers:
                victim = rng.choice(workers)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill_workers)
    thread.start()

    def stop():
        ends.set()
        thread.join()
        return len(killed)

    try:
        with leak_check(running_engine=True):
            yield stop
    finally:
        stop()
        engine.shutdown()


def test_every_result_is_right(chaos):
    @engine.remote(max_retries=-1)
    def square(n):
        return n * n

    @engine.remote(max_retries=-1)
    def ones(n):
        return np.full(20_000, n)

    @engine.remote(max_retries=-1)
    def total(array):
        return int(array.sum())

    @engine.remote(max_retries=-1)
    def tree(depth):
        return 1 if depth == 0 else sum(engine.get([tree.remote(depth - 1) for _ in range(2)]))

    ends = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < ends:
        squares = [square.remote(n) for n in range(300)]
        totals = [total.remote(ones.remote(n)) for n in range(5)]
        arrays = [ones.remote(n) for n in range(5)]
        count = tree.remote(3)
        assert engine.get(squares, timeout=60) == [n * n for n in range(300)]
        assert engine.get(totals, timeout=60) == [20_000 * n for n in range(5)]
        for n, array in enumerate(engine.get(arrays, timeout=60)):
            assert np.array_equal(array, np.full(20_000, n))
        assert engine.get(count, timeout=60) == 8
        rounds += 1
    assert chaos() > 5 and rounds > 0
    del squares, totals, arrays, count, array
    wait_for(all_resources_free, "all resources free again")
    assert engine.get([square.remote(n) for n in range(100)]) == [n * n for n in range(100)]


def test_actors_restart_until_the_end(chaos):
    @engine.remote(max_restarts=-1)
    class Echo:
        def echo(self, value):
            return value

    actors = [Echo.remote() for _ in range(2)]
    ends = time.monotonic() + SECONDS
    answers = failures = 0
    while time.monotonic() < ends:
        for ref in [actor.echo.remote(answers) for actor in actors for _ in range(20)]:
            try:
                value = engine.get(ref, timeout=60)
            except EngineError as error:
                assert "may or may not have run" in str(error)
                failures += 1
            else:
                assert isinstance(value, int) and value <= answers
                answers += 1
    chaos()
    assert answers > 0

    def all_answer():
        try:
            return engine.get([actor.echo.remote("there") for actor in actors], timeout=60) == ["there"] * 2
        except EngineError:
            return False

    wait_for(all_answer, "both actors live")
    actors.clear()
    wait_for(all_resources_free, "all resources free again")
