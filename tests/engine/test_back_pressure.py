"""Submission waits when too much is unfinished, takes in results as it goes, and long tasks hold up no others."""

import threading
import time

import pytest
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.runtime import process, reconciliation, unfinished


@engine.remote
def echo(value):
    return value


@engine.remote
def until_there(path):
    while path is not None and not path.exists():
        time.sleep(0.001)
    return True


@engine.remote
class Sleeper:
    def __init__(self):
        self.calls = 0

    def nap(self, _payload):
        self.calls += 1
        time.sleep(0.0005)
        return self.calls


@engine.remote
def submits(count, payload):
    """How many tasks, and how large, and the most that were unfinished at a time."""
    backend = api.current_backend()
    unfinished.MAX_TASKS = 300
    most = 0
    refs = []
    for _ in range(count):
        refs.append(echo.remote(payload))
        most = max(most, len(backend.unfinished.tasks()))
    return most, len(engine.get(refs))


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=1)
    yield api.current_backend()
    engine.shutdown()


def test_submission_waits_past_the_number_of_unfinished_tasks(started, monkeypatch):
    monkeypatch.setattr(unfinished, "MAX_TASKS", 300)
    most = 0
    for i in range(3000):
        echo.remote(i)
        most = max(most, len(started.unfinished.tasks()))
    assert 0 < most <= 300 + 2 * 128  # the background thread may have sent a part of a batch
    wait_for(lambda: not (started.questions.census()["tasks"] or started.unfinished.tasks()), "all tasks end")


def test_a_program_that_is_far_ahead_is_held_to_the_pace_of_its_tasks(started, monkeypatch):
    monkeypatch.setattr(unfinished, "PACE_TASKS", 300)
    most = 0
    for i in range(3000):
        echo.remote(i)
        most = max(most, len(started.unfinished.tasks()))
    assert 300 < most <= 300 + 2 * 128
    wait_for(lambda: not (started.questions.census()["tasks"] or started.unfinished.tasks()), "all tasks end")


def test_a_program_goes_on_when_none_of_its_tasks_ends_before_it_does(started, monkeypatch, tmp_path):
    """It submits them all, and opens the gate then."""
    monkeypatch.setattr(unfinished, "PACE_TASKS", 300)
    monkeypatch.setattr(process, "SILENCE_SECONDS", 0.05)
    gate = until_there.remote(tmp_path / "gate")
    refs = [echo.remote(gate) for _ in range(3000)]
    assert len(started.unfinished.tasks()) == 3001
    (tmp_path / "gate").touch()
    assert all(engine.get(refs))


def test_what_a_callback_submits_waits_for_nothing(started, monkeypatch):
    """It runs in the thread that receives: nobody else would hear of any end."""
    monkeypatch.setattr(unfinished, "MAX_TASKS", 100)
    refs = []
    submitted = threading.Event()

    def submit(_):
        refs.extend(echo.remote(i) for i in range(1000))
        submitted.set()

    echo.remote(1).future().add_done_callback(submit)
    assert submitted.wait(60)
    assert engine.get(refs) == list(range(1000))


def test_threads_that_are_ahead_wait_for_different_ends(monkeypatch):
    monkeypatch.setattr(unfinished, "PACE_TASKS", 2)
    state = unfinished.Unfinished()
    for i in range(3):
        state.submitted(bytes([i]), 10)
    assert state.is_ahead()
    assert [state.claim(10), state.claim(10)] == [10, 20]
    state.heard = 15
    state.silent(14)
    assert state.is_ahead()
    state.silent(15)
    assert not state.is_ahead()
    state.heard = 16
    assert state.is_ahead() and state.claim(10) == 26


def test_submission_waits_past_the_bytes_of_unfinished_calls(started, monkeypatch):
    monkeypatch.setattr(unfinished, "MAX_BYTES", 200_000)
    sleeper = Sleeper.remote()
    payload = bytes(5000)
    most = 0
    refs = []
    for _ in range(1000):
        refs.append(sleeper.nap.remote(payload))
        most = max(most, started.unfinished._bytes)
    assert most <= 200_000 + 2 * 129 * 5500
    assert engine.get(refs[-1]) == 1000
    assert started.unfinished._bytes == 0 and not started.unfinished.tasks()


def test_a_task_that_waits_for_room_gives_its_cpu_to_what_it_submitted(started):
    most, ended = engine.get(submits.remote(1500, bytes(10)))
    assert ended == 1500 and 0 < most <= 300 + 2 * 128


def test_results_nobody_waits_for_are_taken_in_as_more_is_submitted(started):
    """Or they would pile up in the mail of a program that never waits."""
    for _ in range(20_000):
        echo.remote(1)
    wait_for(lambda: not started.questions.census()["tasks"], "all tasks end")
    for _ in range(10 * 128):  # each batch takes in what has come
        echo.remote(1)
    assert len(started.unfinished.tasks()) < 10_000
    wait_for(lambda: not (started.questions.census()["tasks"] or started.unfinished.tasks()), "all tasks end")


def test_tasks_queued_behind_a_long_one_move_on_though_the_node_is_busy(tmp_path):
    start_engine(num_cpus=2)
    engine.get([until_there.remote(None) for _ in range(200)])  # it is known to be short
    gate = tmp_path / "gate"
    long = until_there.remote(gate)
    pending = [until_there.remote(None) for _ in range(50)]
    while pending:  # questions keep the node from ever being silent
        engine.available_resources()
        _, pending = engine.wait(pending, num_returns=len(pending), timeout=0)
    assert not engine.wait([long], timeout=0)[0]
    gate.touch()
    assert engine.get(long)
    engine.shutdown()


def test_after_a_death_results_are_asked_for_page_by_page(monkeypatch):
    monkeypatch.setattr(reconciliation, "TASKS_PER_PAGE", 10)
    asked = []
    pages = reconciliation.Reconciliation(asked.append)
    pages.ask("w1", [bytes([i]) for i in range(25)])
    pages.ask("w2", [b"x"])
    assert [page.worker for page in asked] == ["w1"]
    for page in range(4):
        pages.answered(page)
        pages.answered(page)  # twice after an interrupt
    assert {page.page: len(page.tasks) for page in asked} == {0: 10, 1: 10, 2: 5, 3: 1}
    assert asked[-1].worker == "w2"
