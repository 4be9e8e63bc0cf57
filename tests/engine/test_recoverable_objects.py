"""What recoverable actors hold, made and called: alive when they are restored, and not made or called twice."""

import gc
import os
from random import Random

import numpy as np
import pytest
from crashing import die_at_first, note, noted
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from recovering import Ledger, kill, replayed
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.util import list_named_actors

LARGE = 50_000


@engine.remote
class Shelf:
    """Keeps what it gets, as refs or as values."""

    def __init__(self, *first):
        self.kept = [*first]

    def keep(self, value):
        self.kept.append(value)
        return len(self.kept)

    def sums(self):
        values = [engine.get(each[0]) if isinstance(each, list) else each for each in self.kept]
        return [float(np.sum(value)) for value in values]

    def make(self, value, kind):
        """A ref to something of its own, which it keeps as well."""
        ref = engine.put(value) if kind == "put" else copy.remote(value)
        self.kept.append([ref])
        return [ref]

    def give(self, position):
        """A ref that it has kept."""
        return self.kept[position]

    def ignore(self, value):
        """Needs it for nothing."""

    def clear(self):
        self.kept.clear()

    def blocks(self):
        return api.current_backend().storage.arena.blocks()

    def pid(self):
        return os.getpid()


@engine.remote
def copy(value):
    return value


@engine.remote
def noting(path, value):
    note(path)
    return value


@pytest.mark.parametrize("every", [0, 2])
def test_arguments_are_there_for_the_replay(every):
    """Their owner has dropped them, and forgets them as soon as the call is answered."""
    shelf = Shelf.options(max_restarts=-1, checkpoint_every=every).remote()
    engine.get(shelf.keep.remote(np.full(LARGE, 1.0)))  # too large for a spec
    engine.get(shelf.keep.remote(engine.put(np.full(LARGE, 2.0))))  # by value
    engine.get(shelf.keep.remote([engine.put(np.full(LARGE, 3.0))]))  # as a ref
    engine.get(shelf.keep.remote([engine.put(4.0)]))
    engine.get(shelf.keep.remote([copy.remote(5.0)]))
    engine.get(shelf.keep.remote(copy.remote(np.full(LARGE, 6.0))))
    expected = [LARGE, 2 * LARGE, 3 * LARGE, 4, 5, 6 * LARGE]
    gc.collect()
    for _ in range(3):
        assert engine.get(shelf.sums.remote()) == expected
        kill(shelf)
    assert engine.get(shelf.sums.remote()) == expected


@pytest.mark.parametrize("every", [0, 1, 3])
@pytest.mark.parametrize("kind", ["put", "task"])
@pytest.mark.parametrize("size", [1, LARGE])
def test_refs_to_what_the_actor_made_itself(every, kind, size):
    shelf = Shelf.options(max_restarts=-1, checkpoint_every=every).remote()
    refs = [engine.get(shelf.make.remote(np.full(size, float(i)), kind))[0] for i in range(2)]
    for _ in range(2):
        assert engine.get(shelf.sums.remote()) == [0, size]
        kill(shelf)
    assert [float(engine.get(ref).sum()) for ref in refs] == [0, size]
    del refs
    gc.collect()
    kill(shelf)
    assert engine.get(shelf.sums.remote()) == [0, size]


@pytest.mark.parametrize("size", [1, LARGE])
def test_puts_of_a_replay_have_their_old_names_and_a_new_owner(size):
    """While others hold the first copies, and when they have let them go."""
    shelf = Shelf.options(max_restarts=-1, checkpoint_every=0).remote()
    refs = [engine.get(shelf.make.remote(np.full(size, float(i)), "put"))[0] for i in range(3)]
    kill(shelf)
    assert [engine.get(ref)[0] for ref in refs] == [0, 1, 2]
    again = engine.get(shelf.give.remote(1))[0]
    assert again == refs[1] and engine.get(again)[0] == 1
    del refs, again
    gc.collect()
    assert engine.get(shelf.sums.remote()) == [0, size, 2 * size]
    (again,) = engine.get(shelf.give.remote(2))
    assert engine.get(again)[0] == 2
    assert engine.get(copy.remote(again))[0] == 2
    del again
    gc.collect()
    engine.get(shelf.clear.remote())
    wait_for(lambda: engine.get(shelf.blocks.remote()) == 0, "the memory of both copies is free")


@pytest.mark.parametrize("every", [None, 0, 1])
def test_arguments_of_init_are_there_for_every_restart(every):
    first = [np.full(LARGE, 1.0), engine.put(np.full(LARGE, 2.0)), [engine.put(np.full(LARGE, 3.0))]]
    shelf = Shelf.options(max_restarts=2, checkpoint_every=every, max_task_retries=3).remote(*first)
    del first
    gc.collect()
    for _ in range(2):
        assert engine.get(shelf.sums.remote()) == [LARGE, 2 * LARGE, 3 * LARGE]
        kill(shelf)
    assert engine.get(shelf.sums.remote()) == [LARGE, 2 * LARGE, 3 * LARGE]


def test_large_results_outlive_the_process_that_made_them():
    shelf = Shelf.options(max_restarts=-1, checkpoint_every=2).remote()
    refs = [shelf.make.remote(np.full(LARGE, float(i)), "put") for i in range(5)]
    results = engine.get(refs)
    kill(shelf)
    assert [float(engine.get(ref)[0]) for (ref,) in results] == [0, 1, 2, 3, 4]


def test_what_is_still_to_come_when_it_is_saved(tmp_path):
    """A checkpoint with a ref to the result of a task that runs yet."""

    @engine.remote
    def when_allowed():
        wait_for((tmp_path / "allowed").exists, "it is allowed")
        return 7.0

    @engine.remote(max_restarts=-1, checkpoint_every=1)
    class Patient:
        def start(self):
            self.ref = when_allowed.remote()

        def result(self):
            return engine.get(self.ref)

        def pid(self):
            return os.getpid()

    patient = Patient.remote()
    engine.get(patient.start.remote())
    kill(patient)
    note(tmp_path / "allowed")
    assert engine.get(patient.result.remote()) == 7.0
    kill(patient)
    assert engine.get(patient.result.remote()) == 7.0


@engine.remote
class Boss:
    """Has others work: an actor it was given, one that it made in ``__init__``, one it makes when asked, and tasks."""

    def __init__(self, ledger, folder):
        self.ledger = ledger
        self.folder = folder
        self.own = Ledger.remote()
        self.late = None
        self.calls = 0

    def work(self, i, die=False):
        answers = [engine.get(self.ledger.add.remote(i)), engine.get(self.own.add.remote(i))]
        answers.append(engine.get(noting.remote(self.folder / f"task {i}", i)))
        if self.late is None:
            self.late = Ledger.remote()
        answers.append(engine.get(self.late.add.remote(i)))
        if die:
            die_at_first(self.folder / f"death {i}", 1, "is_killed")
        self.calls += 1
        return answers

    def own_ledgers(self):
        return [engine.get(ledger.all.remote()) for ledger in (self.own, self.late)]

    def pid(self):
        return os.getpid()


@pytest.mark.parametrize("every", [0, 1, 3])
@pytest.mark.parametrize("of_callee", [{}, {"max_restarts": -1, "checkpoint_every": 2}])
def test_what_the_actor_calls_is_not_called_twice(tmp_path, every, of_callee):
    ledger = Ledger.options(**of_callee).remote()
    boss = Boss.options(max_restarts=-1, checkpoint_every=every).remote(ledger, tmp_path)
    refs = [boss.work.remote(i, die=i % 2 == 1) for i in range(5)]
    assert engine.get(refs) == [[i + 1, i + 1, i, i + 1] for i in range(5)]
    kill(boss)
    assert engine.get(boss.own_ledgers.remote()) == [list(range(5))] * 2
    assert engine.get(ledger.all.remote()) == list(range(5))
    assert [noted(tmp_path / f"task {i}") for i in range(5)] == [1] * 5
    if of_callee:
        kill(ledger)
        assert engine.get(boss.work.remote(5)) == [6, 6, 5, 6]
        kill(boss)
        assert engine.get(boss.work.remote(6)) == [7, 7, 6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_actors_that_call_each_other_are_killed_at_random(tmp_path, seed):
    """Whoever dies whenever: at the end every state is as if nobody had."""
    random = Random(seed)
    survivors = {"max_restarts": -1, "checkpoint_every": random.choice([0, 1, 7])}
    ledgers = [Ledger.options(**survivors).remote(), Ledger.remote()]
    bosses = [Boss.options(**survivors).remote(ledger, tmp_path / str(i)) for i, ledger in enumerate(ledgers)]
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    answers = []
    for round in range(12):
        refs = [boss.work.remote(i) for i in range(5 * round, 5 * round + 5) for boss in bosses]
        for victim in random.sample([ledgers[0], *bosses], random.randint(0, 2)):
            engine.kill(victim, no_restart=False)
        if random.random() < 0.5:
            answers += engine.get(refs)
        else:
            answers += [engine.get(ref) for ref in refs]
    expected = list(range(60))
    assert answers == [[i + 1, i + 1, i, i + 1] for i in expected for _ in bosses]
    assert engine.get([ledger.all.remote() for ledger in ledgers]) == [expected] * 2
    assert engine.get([boss.own_ledgers.remote() for boss in bosses]) == [[expected] * 2] * 2


def test_large_answers_of_other_actors_are_there_for_the_replay():
    @engine.remote
    class Source:
        def __init__(self):
            self.asked = 0

        def array(self):
            self.asked += 1
            return np.full(LARGE, float(self.asked))

    @engine.remote(max_restarts=-1, checkpoint_every=0)
    class Sink:
        def __init__(self):
            self.total = 0.0

        def take(self, source):
            self.total += float(engine.get(source.array.remote())[0])
            return self.total

        def pid(self):
            return os.getpid()

    source, sink = Source.remote(), Sink.remote()
    assert engine.get([sink.take.remote(source) for _ in range(3)]) == [1, 3, 6]
    kill(sink)
    assert engine.get(sink.take.remote(source)) == 10
    assert replayed(sink) == [4]


def test_an_actor_in_whose_log_its_own_handle_is_ends_with_its_last_handle():
    shelf = Shelf.options(max_restarts=-1, checkpoint_every=0, name="narcissus").remote()
    assert engine.get(shelf.ignore.remote([shelf])) is None
    kill(shelf)
    assert engine.get(shelf.ignore.remote([shelf])) is None
    del shelf
    gc.collect()

    # get_actor() would give this process another handle each time
    wait_for(lambda: "narcissus" not in list_named_actors(), "it lets its own handle go")
