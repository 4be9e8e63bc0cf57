"""A worker is killed before memory runs out. The limits of these tests are far below the machine's."""

import os
import time
from pathlib import Path

import pytest

from rlflow import engine
from rlflow.engine import machine
from rlflow.engine.exceptions import ActorDiedError, OutOfMemoryError

ALLOWED = 300 * 10**6
TOO_MUCH = 400 * 10**6


def fill():
    held = bytearray(TOO_MUCH)
    for page in range(0, TOO_MUCH, 4096):
        held[page] = 1
    time.sleep(1000)


@engine.remote
def greedy(attempts):
    with open(attempts, "a") as file:
        file.write(f"{engine.get_runtime_context().attempt}\n")
    fill()


@engine.remote
def greedy_once(done):
    if not os.path.exists(done):
        Path(done).touch()
        fill()
    return engine.get_runtime_context().attempt


@engine.remote
def modest():
    return "done"


@engine.remote
class Greedy:
    def fill(self):
        fill()


@pytest.fixture
def small():
    engine.init(num_cpus=2, memory=ALLOWED)
    yield
    engine.shutdown()


def test_a_task_that_uses_too_much(small, tmp_path):
    with pytest.raises(OutOfMemoryError) as caught:
        engine.get(greedy.options(max_retries=1).remote(tmp_path / "attempts"))
    assert (tmp_path / "attempts").read_text().split() == ["0", "1"]
    text = str(caught.value)
    for words in ("task greedy", "which had", "MB of memory", "init(memory=...) allows 300 MB", "max_retries=1"):
        assert words in text
    assert engine.get(modest.remote()) == "done"


def test_a_task_that_is_run_again(small, tmp_path):
    assert engine.get(greedy_once.remote(tmp_path / "done")) == 1


def test_an_actor_that_uses_too_much(small):
    actor = Greedy.remote()
    with pytest.raises(ActorDiedError, match=r"init\(memory=\.\.\.\) allows 300 MB"):
        engine.get(actor.fill.remote())


def test_the_machines_limit(tmp_path, monkeypatch):
    monkeypatch.setenv(machine.THRESHOLD, "1e-6")  # passed already, whatever else runs here
    engine.init(num_cpus=1)
    with pytest.raises(OutOfMemoryError, match="are in use on this machine"):
        engine.get(greedy.options(max_retries=0).remote(tmp_path / "attempts"))
    engine.shutdown()


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_a_threshold_that_is_none(monkeypatch, text):
    monkeypatch.setenv(machine.THRESHOLD, text)
    with pytest.raises(ValueError, match=f"RLFLOW_MEMORY_USAGE_THRESHOLD must be a number above 0.*got '{text}'"):
        engine.init(num_cpus=1)
    assert not engine.is_initialized()


def test_memory_in_a_control_group(tmp_path):
    assert machine.memory_used(tmp_path) is None
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 1500\n")
    assert machine.memory_used(tmp_path) == 3500
