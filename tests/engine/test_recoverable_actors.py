"""Recoverable actors are killed at every moment, and nobody notices: state, results and order are as undisturbed."""

import os

import pytest
from crashing import die_at_first, note, noted
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from recovering import POINTS, Ledger, events, kill, replayed
from waiting import wait_for

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError, ActorUnavailableError, TaskCancelledError

CALLS = 9


@pytest.mark.parametrize("every", [0, 1, 4])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_call(tmp_path, point, every):
    for deadly in range(CALLS):
        folder = tmp_path / str(deadly)
        folder.mkdir()
        ledger = Ledger.options(max_restarts=1, checkpoint_every=every).remote(folder)
        refs = [ledger.add.remote(i, point if i == deadly else None) for i in range(CALLS)]
        assert engine.get(refs) == list(range(1, CALLS + 1))
        assert engine.get(ledger.all.remote()) == list(range(CALLS))
        assert noted(folder / f"death at {deadly}") == 2  # it died, and the call was run once more


def test_killed_again_and_again_between_calls():
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=3).remote()
    for i in range(8):
        assert engine.get(ledger.add.remote(i)) == i + 1
        kill(ledger)
    assert engine.get(ledger.all.remote()) == list(range(8))
    assert all(count <= 3 for count in replayed(ledger))


def test_killed_with_calls_of_many_callers_on_their_way(tmp_path):
    """The order of all of them together is what it was when their results were seen."""

    @engine.remote
    def caller(ledger, name):
        return [(name, i, engine.get(ledger.add.remote((name, i)))) for i in range(40)]

    ledger = Ledger.options(max_restarts=-1, checkpoint_every=25).remote()
    names = ["a", "b", "c"]
    callers = [caller.options(num_cpus=0).remote(ledger, name) for name in names]
    for _ in range(4):
        kill(ledger)
    seen = [result for results in engine.get(callers) for result in results]
    entries = engine.get(ledger.all.remote())
    assert sorted(entries) == sorted((name, i) for name in names for i in range(40))
    assert all(entries[position - 1] == (name, i) for name, i, position in seen)


def test_calls_that_raised_are_replayed_as_raising():
    @engine.remote(max_restarts=-1, checkpoint_every=0)
    class Moody:
        def __init__(self):
            self.value = 0

        def pid(self):
            return os.getpid()

        def add(self, n):
            self.value += n
            if self.value % 2:
                raise ValueError(f"odd: {self.value}")
            return self.value

    def answer(ref):
        try:
            return engine.get(ref)
        except ValueError as error:
            return str(error.cause)

    moody = Moody.remote()
    assert [answer(moody.add.remote(n)) for n in (1, 1, 2, 3)] == ["odd: 1", 2, 4, "odd: 7"]
    kill(moody)
    assert answer(moody.add.remote(0)) == "odd: 7"
    assert replayed(moody) == [5]


def test_what_is_replayed_is_bounded_by_the_checkpoints():
    ledger = Ledger.options(max_restarts=1, checkpoint_every=50).remote()
    assert engine.get([ledger.add.remote(i) for i in range(1020)])[-1] == 1020
    kill(ledger)
    assert engine.get(ledger.add.remote(1020)) == 1021
    assert replayed(ledger) == [21]  # 20, and the question for the pid
    assert "from the checkpoint after call 1000" in events("actor restored", ledger)[0]


def test_it_dies_while_it_is_restored(tmp_path):
    @engine.remote(max_restarts=4, checkpoint_every=0)
    class Weak:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            if noted(tmp_path / "killed") and note(tmp_path / "replays") < 3:
                os._exit(3)
            return self.value

        def pid(self):
            return os.getpid()

    weak = Weak.remote()
    assert engine.get([weak.add.remote() for _ in range(3)]) == [1, 2, 3]
    note(tmp_path / "killed")
    kill(weak)
    assert engine.get(weak.add.remote()) == 4
    assert noted(tmp_path / "replays") == 3 + 4  # three deaths, then 3 calls replayed and the new one
    assert len(events("actor restarted", weak)) == 4


def test_killed_on_purpose_to_restart():
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=2).remote()
    for i in range(5):
        ledger.add.remote(i)
        engine.kill(ledger, no_restart=False)
    assert engine.get(ledger.all.remote()) == list(range(5))


def test_restarts_run_out(tmp_path):
    ledger = Ledger.options(max_restarts=2, checkpoint_every=1).remote(tmp_path)
    assert engine.get(ledger.add.remote(0)) == 1
    for _ in range(2):
        kill(ledger)
        assert engine.get(ledger.all.remote()) == [0]
    deadly = ledger.add.remote(1, "when it has run")
    for ref in (deadly, ledger.all.remote(), ledger.all.remote()):
        with pytest.raises(ActorDiedError, match=r"Ledger.* is dead after 2 restarts: .*SIGKILL"):
            engine.get(ref)


def test_a_cancelled_call_is_not_run_by_a_replay(tmp_path):
    @engine.remote(max_restarts=-1, checkpoint_every=0)
    class Slow:
        def __init__(self):
            self.entries = []

        def wait(self, path):
            wait_for(path.exists, "it may go on")

        def add(self, entry):
            self.entries.append(entry)
            return list(self.entries)

        def pid(self):
            return os.getpid()

    slow = Slow.remote()
    waiting, cancelled = slow.wait.remote(tmp_path / "go on"), slow.add.remote("cancelled")
    engine.cancel(cancelled)
    note(tmp_path / "go on")
    engine.get(waiting)
    with pytest.raises(TaskCancelledError):
        engine.get(cancelled)
    assert engine.get(slow.add.remote("first")) == ["first"]
    kill(slow)
    assert engine.get(slow.add.remote("second")) == ["first", "second"]


def test_a_name_stays_over_restarts():
    ledger = Ledger.options(name="kept", max_restarts=1, checkpoint_every=1).remote()
    assert engine.get(ledger.add.remote(0)) == 1
    kill(ledger)
    assert engine.get(engine.get_actor("kept").all.remote()) == [0]


def test_a_caller_that_is_run_again_does_not_apply_its_calls_twice(tmp_path):
    @engine.remote
    def caller(ledger):
        last = [engine.get(ledger.add.remote(i)) for i in range(5)]
        ledger.add.remote(5)
        die_at_first(tmp_path / "caller", 1, "is_killed")
        return last

    for ledger in (Ledger.options(max_restarts=1, checkpoint_every=2).remote(), Ledger.remote()):
        (tmp_path / "caller").unlink(missing_ok=True)
        assert engine.get(caller.remote(ledger)) == [1, 2, 3, 4, 5]
        wait_for(lambda ledger=ledger: len(engine.get(ledger.all.remote())) == 6, "the last call runs")
        assert engine.get(ledger.all.remote()) == list(range(6))


# ---------------------------------------------------------------- restarts that forget


def test_without_replay_the_state_is_that_of_the_checkpoint():
    ledger = Ledger.options(max_restarts=-1, checkpoint_every=4, replay=False).remote()
    assert engine.get([ledger.add.remote(i) for i in range(6)])[-1] == 6
    kill(ledger)

    def entries():
        try:
            return engine.get(ledger.all.remote())
        except ActorUnavailableError:  # as for actors without a log
            return None

    wait_for(entries, "it serves again")
    assert entries() == [0, 1, 2, 3]


def test_calls_are_sent_again_to_actors_without_a_log(tmp_path):
    ledger = Ledger.options(max_restarts=-1, max_task_retries=1).remote(tmp_path)
    assert engine.get(ledger.add.remote(0)) == 1
    refs = [ledger.add.remote(i, "when it has run" if i == 3 else None) for i in range(1, 6)]
    last = engine.get(refs)[-1]
    entries = engine.get(ledger.all.remote())
    assert 0 not in entries and entries[-3:] == [3, 4, 5]  # of the second life, without the state of the first
    assert last == len(entries)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_of_calls_run_out(tmp_path, retries):
    @engine.remote
    class Fatal:
        def die(self):
            note(tmp_path / "deaths")
            os._exit(3)

        def live(self):
            return "lives"

    fatal = Fatal.options(max_restarts=-1, max_task_retries=retries).remote()
    with pytest.raises(ActorUnavailableError):
        engine.get(fatal.die.remote())
    assert noted(tmp_path / "deaths") == 1 + retries
    assert engine.get(fatal.live.remote()) == "lives"
