"""Actors: names, last handles, death."""

import gc

import pytest
from counters import Counter, add_through, name_is_free, until

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError, EngineError, TaskError
from rlflow.engine.util import list_named_actors

pytestmark = pytest.mark.usefixtures("cluster")


# --- handles ---


def test_an_actor_dies_with_its_last_handle():
    counter = Counter.options(name="mortal").remote()
    assert engine.get(counter.add.remote()) == 1
    copy = engine.get_actor("mortal")
    del counter
    gc.collect()
    assert engine.get(copy.add.remote()) == 2  # one handle is left
    del copy
    until(lambda: name_is_free("mortal"))


def test_calls_are_finished_after_the_last_handle_is_gone():
    refs = [Counter.remote(i).add.remote() for i in range(3)]
    gc.collect()
    assert engine.get(refs) == [1, 2, 3]


def test_a_handle_held_by_an_object_keeps_the_actor():
    box = engine.put([Counter.options(name="boxed").remote()])
    gc.collect()
    assert engine.get(engine.get(box)[0].add.remote()) == 1
    del box
    until(lambda: name_is_free("boxed"))


# --- names ---


def test_named_actors():
    counter = Counter.options(name="global").remote(5)
    assert engine.get_actor("global") == counter
    assert engine.get(engine.get_actor("global").add.remote()) == 6
    with pytest.raises(ValueError, match="'global'"):
        Counter.options(name="global").remote()
    assert engine.get(counter.read.remote()) == 6


def test_names_are_found_from_tasks():
    @engine.remote
    def find():
        return engine.get(engine.get_actor("from-task").add.remote())

    counter = Counter.options(name="from-task").remote()
    assert engine.get(counter.read.remote()) == 0
    assert engine.get(find.remote()) == 1


def test_a_name_nobody_has():
    with pytest.raises(ValueError, match="nobody"):
        engine.get_actor("nobody")


def test_get_if_exists():
    factory = Counter.options(name="single", get_if_exists=True)
    first = factory.remote(1)
    second = factory.remote(50)
    assert first == second
    assert engine.get(second.add.remote()) == 2


def test_namespaces():
    here = Counter.options(name="twin").remote(1)
    there = Counter.options(name="twin", namespace="other").remote(2)
    assert here != there
    assert engine.get(engine.get_actor("twin").read.remote()) == 1
    assert engine.get(engine.get_actor("twin", namespace="other").read.remote()) == 2
    with pytest.raises(ValueError, match="empty"):
        engine.get_actor("twin", namespace="empty")


def test_names_are_listed():
    @engine.remote
    def names(**options):
        return list_named_actors(**options)

    before = list_named_actors(all_namespaces=True)
    kept = [Counter.options(name=name).remote() for name in ("second", "first")]
    there = Counter.options(name="elsewhere", namespace="other").remote()
    unnamed = Counter.remote()
    assert list_named_actors() == ["first", "second"] == engine.get(names.remote())
    everywhere = [
        {"name": "first", "namespace": "default"}, {"name": "second", "namespace": "default"},
        {"name": "elsewhere", "namespace": "other"},
    ]
    assert before == [] and list_named_actors(all_namespaces=True) == everywhere
    assert engine.get(names.remote(all_namespaces=True)) == everywhere
    engine.kill(there)
    del kept[0], unnamed
    until(lambda: list_named_actors(all_namespaces=True) == everywhere[:1])


# --- death ---


def test_kill():
    counter = Counter.options(name="victim").remote()
    assert engine.get(counter.add.remote()) == 1
    engine.kill(counter)
    with pytest.raises(ActorDiedError, match=r"Counter.*kill"):
        engine.get(counter.add.remote())
    until(lambda: name_is_free("victim"))
    assert engine.get(Counter.options(name="victim").remote(9).read.remote()) == 9


def test_kill_twice_and_results_from_before():
    counter = Counter.remote()
    ref = counter.add.remote()
    assert engine.get(ref) == 1
    engine.kill(counter)
    engine.kill(counter)
    assert engine.get(ref) == 1
    for ref in counter.pair.remote():
        with pytest.raises(ActorDiedError):
            engine.get(ref)


def test_what_a_killed_actor_made_is_freed():
    @engine.remote
    def large():
        return bytes(20_000)

    @engine.remote
    class Maker:
        def make(self):
            self.kept = [large.remote() for _ in range(3)]
            return self.kept

    for _ in range(10):
        maker = Maker.remote()
        refs = engine.get(maker.make.remote())
        assert engine.get(refs[0]) == bytes(20_000)
        engine.kill(maker)


def test_kill_takes_handles_only():
    for wrong in (engine.put(1), "name", None, Counter):
        with pytest.raises(TypeError, match=r"kill\(\) takes an actor handle"):
            engine.kill(wrong)


def test_kill_with_a_restart():
    counter = Counter.options(max_restarts=1).remote(5)
    assert engine.get(counter.add.remote()) == 6
    engine.kill(counter, no_restart=False)

    def answers():
        try:
            return engine.get(counter.read.remote()) == 5  # __init__ again, its state gone
        except EngineError:
            return False  # it is on its way

    until(answers)
    engine.kill(counter, no_restart=False)  # none left
    with pytest.raises(ActorDiedError):
        engine.get(counter.read.remote())


def test_an_init_that_fails():
    @engine.remote
    class Stillborn:
        def __init__(self, reason):
            raise KeyError(reason)

        def method(self):
            return 1

    actor = Stillborn.remote("the reason")
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="__init__") as caught:
            engine.get(actor.method.remote())
        cause = caught.value.__cause__
        assert isinstance(cause, TaskError) and isinstance(cause, KeyError)
        assert "the reason" in str(cause) and "__init__" in cause.remote_traceback


def test_an_init_whose_argument_failed():
    @engine.remote
    def broken():
        raise ValueError("no argument")

    actor = Counter.remote(broken.remote())
    with pytest.raises(ActorDiedError) as caught:
        engine.get(actor.read.remote())
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_init_with_wrong_arguments():
    with pytest.raises((TypeError, ActorDiedError)):
        engine.get(Counter.remote(1, 2, 3).read.remote())


def test_a_death_passes_through_tasks():
    counter = Counter.remote()
    engine.kill(counter)
    with pytest.raises(ActorDiedError):
        engine.get(add_through.remote(counter, 1))


def test_a_handle_of_an_engine_that_was_shut_down(backend):
    counter = Counter.remote()
    engine.shutdown()
    engine.init(backend=backend, num_cpus=1)
    with pytest.raises(EngineError):
        engine.get(counter.add.remote(), timeout=30)


# --- ends by their own will, and lives of their own ---


@engine.remote
class Leaver:
    def leave(self):
        engine.actor.exit_actor()

    def stay(self):
        return "here"


def test_exit_actor_ends_it_and_what_is_queued():
    leaver = Leaver.options(name="leaver", max_restarts=-1).remote()
    assert engine.get(leaver.stay.remote()) == "here"
    refs = [leaver.leave.remote(), leaver.stay.remote()]
    for ref in refs:
        with pytest.raises(ActorDiedError, match=r"it called exit_actor\(\)"):
            engine.get(ref)
    until(lambda: name_is_free("leaver"))


def test_exit_actor_is_for_actors():
    with pytest.raises(EngineError, match="no actor's method"):
        engine.exit_actor()


def test_a_detached_actor_outlives_its_handles_until_it_is_killed():
    Counter.options(name="detached", lifetime="detached").remote(1)
    gc.collect()
    assert engine.get(engine.get_actor("detached").add.remote()) == 2
    gc.collect()
    assert engine.get(engine.get_actor("detached").add.remote()) == 3
    engine.kill(engine.get_actor("detached"))
    until(lambda: name_is_free("detached"))


def test_a_lifetime_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="lifetime must be"):
        Counter.options(lifetime="eternal")


def test_actors_that_have_ended_leave_nothing():
    for _ in range(20):
        counters = [Counter.remote(), Counter.remote()]
        engine.kill(counters[0])
        with pytest.raises(ActorDiedError):
            engine.get(counters[0].add.remote())
        assert engine.get(counters[1].add.remote()) == 1
    # what the engine knows of them is asked for by the check for leaks


# --- restarts ---


@pytest.mark.parametrize("every", [0, 2])
def test_an_actor_with_checkpoints_has_its_state_after_a_restart(every):
    counter = Counter.options(max_restarts=-1, checkpoint_every=every).remote(10)
    assert [engine.get(counter.add.remote()) for _ in range(3)] == [11, 12, 13]
    engine.kill(counter, no_restart=False)
    assert engine.get(counter.add.remote()) == 14
