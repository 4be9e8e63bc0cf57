"""Actors whose process dies: idle, with calls queued, in ``__init__``, on the way to a restart."""

import os
import signal
import time

import psutil
import pytest
from crashing import DEATHS, REASONS, die_at_first, note, noted
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from waiting import daemon_and_zygote, is_gone, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ActorDiedError, ActorUnavailableError, TaskError


@engine.remote
class Victim:
    def __init__(self, path=None):
        self.calls = 0
        if path is not None:
            note(path)

    def pid(self):
        return os.getpid()

    def count(self, path=None):
        if path is not None:
            note(path)
        self.calls += 1
        return self.calls

    def die(self, how):
        DEATHS[how]()

    def hang(self, path):
        note(path)
        time.sleep(1000)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the actor's process ends")


@pytest.mark.parametrize("how", DEATHS)
def test_a_call_that_kills_its_actor(how):
    victim = Victim.remote()
    before = victim.count.remote()
    assert engine.get(before) == 1
    deadly = victim.die.remote(how)
    after = [victim.count.remote() for _ in range(50)]
    for ref in (deadly, *after, victim.count.remote()):
        with pytest.raises(ActorDiedError, match=rf"Victim.*{REASONS[how]}"):
            engine.get(ref)
    assert engine.get(before) == 1


def test_an_idle_actor_is_killed():
    victim = Victim.remote()
    kill(engine.get(victim.pid.remote()))
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            engine.get(victim.count.remote())


def test_an_actor_is_killed_with_calls_queued(tmp_path):
    victim = Victim.remote()
    pid = engine.get(victim.pid.remote())
    refs = [victim.hang.remote(tmp_path / "hangs"), *(victim.count.remote(tmp_path / "calls") for _ in range(300))]
    wait_for(lambda: noted(tmp_path / "hangs"), "the call begins")
    kill(pid)
    for ref in refs:
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            engine.get(ref)
    assert noted(tmp_path / "calls") == 0


def test_results_from_before_the_death_stay():
    victim = Victim.remote()
    refs = [victim.count.remote() for _ in range(200)]
    assert engine.get(refs[-1]) == 200
    kill(engine.get(victim.pid.remote()))
    with pytest.raises(ActorDiedError):
        engine.get(victim.count.remote())
    assert engine.get(refs) == list(range(1, 201))


@pytest.mark.parametrize("how", DEATHS)
def test_an_actor_that_dies_in_its_init(tmp_path, how):
    @engine.remote
    class Stillborn:
        def __init__(self, path):
            die_at_first(path, 100, how)

        def method(self):
            return 1

    stillborn = Stillborn.remote(tmp_path / "inits")
    refs = [stillborn.method.remote() for _ in range(3)]
    for ref in refs:
        with pytest.raises(ActorDiedError, match=REASONS[how]):
            engine.get(ref)
    assert noted(tmp_path / "inits") == 1


def test_an_init_that_dies_is_tried_again_with_restarts(tmp_path):
    @engine.remote
    class Late:
        def __init__(self, path):
            die_at_first(path, 2, "exits")

        def method(self):
            return "born"

    assert engine.get(Late.options(max_restarts=2).remote(tmp_path / "inits").method.remote()) == "born"
    assert noted(tmp_path / "inits") == 3
    with pytest.raises(ActorDiedError, match="exited with code 3"):
        engine.get(Late.options(max_restarts=1).remote(tmp_path / "others").method.remote())
    assert noted(tmp_path / "others") == 2


def test_a_restart_runs_init_again_and_fails_what_was_on_its_way(tmp_path):
    victim = Victim.options(max_restarts=1).remote(tmp_path / "inits")
    assert engine.get([victim.count.remote() for _ in range(3)]) == [1, 2, 3]
    pid = engine.get(victim.pid.remote())
    hanging = victim.hang.remote(tmp_path / "hangs")
    wait_for(lambda: noted(tmp_path / "hangs"), "the call begins")
    kill(pid)
    with pytest.raises(ActorUnavailableError, match="may or may not have run"):
        engine.get(hanging)
    assert engine.get(victim.count.remote()) == 1  # of the second life, without the state of the first
    assert noted(tmp_path / "inits") == 2
    kill(engine.get(victim.pid.remote()))
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        engine.get(victim.count.remote())
    assert noted(tmp_path / "inits") == 2


def test_an_actor_killed_while_it_restarts(tmp_path):
    @engine.remote
    class Slow:
        def __init__(self, folder):
            life = note(folder / "inits")
            (folder / f"pid{life}").write_text(str(os.getpid()))
            if life == 1:
                time.sleep(1000)

        def life(self):
            return "lives"

    slow = Slow.options(max_restarts=2).remote(tmp_path)
    assert engine.get(slow.life.remote()) == "lives"
    for life in range(2):
        pid = tmp_path / f"pid{life}"
        wait_for(lambda pid=pid: pid.exists() and pid.read_text(), "the actor is in its __init__")
        kill(int(pid.read_text()))
    def answers():
        try:
            return engine.get(slow.life.remote()) == "lives"
        except ActorUnavailableError:
            return False

    wait_for(answers, "the third life")
    assert noted(tmp_path / "inits") == 3


def test_calls_from_tasks_hear_of_the_death():
    @engine.remote
    def call(handle):
        try:
            return engine.get(handle.die.remote("exits"))
        except ActorDiedError as error:
            return str(error)

    assert "exited with code 3" in engine.get(call.remote(Victim.remote()))


def test_a_task_that_does_not_catch_it_fails_with_it():
    @engine.remote
    def call(handle):
        return engine.get(handle.die.remote("exits"))

    with pytest.raises(ActorDiedError) as caught:
        engine.get(call.remote(Victim.remote()))
    assert isinstance(caught.value, TaskError)


def test_an_actor_whose_creator_crashed_is_made_once(tmp_path):
    """The creator's second attempt finds it again, by the same id."""

    @engine.remote
    def creator(folder):
        victim = Victim.options(name="made-once").remote(folder / "inits")
        engine.get(victim.count.remote())
        die_at_first(folder / "creator", 1, "is_killed")
        return engine.get(victim.count.remote())

    assert engine.get(creator.remote(tmp_path)) in (1, 2)
    assert noted(tmp_path / "creator") == 2


def test_what_an_actor_waits_for_may_crash(tmp_path):
    @engine.remote
    def crash_once(path):
        die_at_first(path, 1, "segfaults")
        return 7

    @engine.remote
    class Boss:
        def delegate(self, path):
            return engine.get(crash_once.remote(path))

    assert engine.get(Boss.remote().delegate.remote(tmp_path / "runs")) == 7


def test_its_process_ends_while_its_last_handle_goes():
    """The node hears of both at once: of what is left to do for a process that is gone, nothing."""

    actor = Victim.remote()
    pid = engine.get(actor.pid.remote())
    backend = api.current_backend()
    daemon, _ = daemon_and_zygote(backend.supervisor_pid)
    os.kill(daemon, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        del actor
        backend.endpoint.flush()
        wait_for(lambda: not psutil.pid_exists(pid), "the zygote has seen the end")
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_for(lambda: not backend.questions.census()["living actors"], "the actor is dead")
    assert engine.get(Victim.remote().pid.remote()) != pid
