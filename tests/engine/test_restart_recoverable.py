"""The daemon is killed, and recoverable actors with it or beside it: every call counts once, in the order seen."""

import os
import random
import signal
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from recovering import events, replayed
from restarting import kill_daemon, nothing_is_left, there_is_a_daemon, without_daemon
from waiting import is_gone, start_engine, wait_for

from rlflow import engine
from rlflow.engine import messages as m
from rlflow.engine.testing import inject, kill_at_message

CHAOS_SECONDS = 3.0


@pytest.fixture
def restarted():
    """Starts an engine under faults; in the end nothing may be left in it."""
    yield start_engine
    try:
        wait_for(nothing_is_left, "nothing is left")
    finally:
        engine.shutdown()


@engine.remote(max_restarts=-1, checkpoint_every=7)
class Ledger:
    def __init__(self):
        self.entries = []
        self.array = np.zeros(20_000)

    def add(self, entry):
        self.entries.append(entry)
        return len(self.entries)

    def add_array(self, array):
        self.array = self.array + array
        return self.array

    def pass_on(self, other, entry):
        """A call that an actor makes itself."""
        self.entries.append(entry)
        return engine.get(other.add.remote(entry))

    def all(self):
        return list(self.entries)

    def pid(self):
        return os.getpid()


def test_calls_go_on_while_the_daemon_is_killed_again_and_again(restarted):
    restarted()
    ledger = Ledger.remote()
    refs = []
    for round_ in range(4):
        refs += [ledger.add.remote(30 * round_ + i) for i in range(30)]
        kill_daemon()
    assert engine.get(refs, timeout=60) == list(range(1, 121))
    assert engine.get(ledger.all.remote()) == list(range(120))


def test_the_actor_dies_while_there_is_no_daemon(restarted):
    restarted()
    ledger = Ledger.remote()
    pid = engine.get(ledger.pid.remote())
    refs = [ledger.add.remote(i) for i in range(20)]
    with without_daemon():
        refs += [ledger.add.remote(i) for i in range(20, 40)]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: is_gone(pid), "the actor's process ends")
        refs += [ledger.add.remote(i) for i in range(40, 60)]
    assert engine.get(refs, timeout=60) == list(range(1, 61))
    assert engine.get(ledger.all.remote()) == list(range(60))
    assert len(replayed(ledger)) == 1


@pytest.mark.parametrize(
    "moment", [m.RawResults, m.Recover, m.ActorState, m.KnownCalls], ids=lambda kind: kind.__name__
)
def test_the_daemon_dies_as_it_sends(restarted, moment):
    """What it sends was committed; the actor dies twice besides."""
    with inject(kill_at_message(moment, sender="node*", nth=2)) as faults:
        restarted()
        ledger = Ledger.remote()
        refs = []
        for round_ in range(3):
            refs += [ledger.add.remote(20 * round_ + i) for i in range(20)]
            if round_ < 2:
                os.kill(engine.get(ledger.pid.remote(), timeout=60), signal.SIGKILL)
        assert engine.get(refs, timeout=60) == list(range(1, 61))
        assert engine.get(ledger.all.remote(), timeout=60) == list(range(60))
        assert all(count <= 7 for count in replayed(ledger))
        assert faults.happened() == [1]


@pytest.mark.parametrize("moment", [m.Ran, m.Checkpointed, m.ActorStarted], ids=lambda kind: kind.__name__)
def test_the_actor_dies_as_it_reports_and_the_daemon_right_after(restarted, moment):
    with inject(kill_at_message(moment, sender="w*", nth=2)) as faults:
        restarted()
        ledger = Ledger.remote()
        first = Ledger.remote()  # or the second start of an actor never comes
        refs = [ledger.add.remote(i) for i in range(20)]
        wait_for(lambda: faults.happened() == [1], "it dies")
        kill_daemon()
        refs += [ledger.add.remote(i) for i in range(20, 40)]
        assert engine.get(refs, timeout=60) == list(range(1, 41))
        assert engine.get(ledger.all.remote()) == list(range(40))
        assert engine.get(first.add.remote("there"), timeout=60) == 1


def test_both_are_killed_at_any_moment(restarted):
    restarted()
    rng = random.Random(5)
    ends = threading.Event()
    ledgers = [Ledger.remote(), Ledger.remote()]
    pids = [0, 0]

    def kill():
        daemon_at = time.monotonic()
        while not ends.wait(rng.uniform(0, 0.3)):
            if rng.random() < 0.4 and time.monotonic() > daemon_at + 1.2 and there_is_a_daemon():
                kill_daemon()
                daemon_at = time.monotonic()
            else:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(pids), signal.SIGKILL)

    pids[:] = [engine.get(ledger.pid.remote()) for ledger in ledgers]
    thread = threading.Thread(target=kill)
    thread.start()
    expected = [0, 0]
    array = np.zeros(20_000)
    try:
        until = time.monotonic() + CHAOS_SECONDS
        while time.monotonic() < until:
            refs = [ledgers[0].add.remote(i) for i in range(20)]
            passed = ledgers[0].pass_on.remote(ledgers[1], "passed on")
            summed = ledgers[1].add_array.remote(np.ones(20_000))
            array = array + 1
            assert engine.get(refs, timeout=60) == list(range(expected[0] + 1, expected[0] + 21))
            assert engine.get(passed, timeout=60) == expected[1] + 1
            assert np.array_equal(engine.get(summed, timeout=60), array)
            expected[0] += 21
            expected[1] += 1
            pids[:] = [engine.get(ledger.pid.remote(), timeout=60) for ledger in ledgers]
    finally:
        ends.set()
        thread.join()
    assert len(engine.get(ledgers[0].all.remote(), timeout=60)) == expected[0]
    assert engine.get(ledgers[1].all.remote(), timeout=60) == ["passed on"] * expected[1]
    assert len(replayed(ledgers[0])) >= 2 and len(events("actor restarted", ledgers[1])) >= 1
    del summed
