"""Actors: state, order, names, handles, death."""

import gc
import time

import numpy as np
import pytest

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError, EngineError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")


@engine.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value

    def read(self):
        return self.value

    def fail(self):
        self.value += 100
        raise ValueError("in the actor")

    def echo(self, *args, **kwargs):
        return args, kwargs

    @engine.method(num_returns=2)
    def pair(self):
        return self.value, -self.value

    def own_id(self):
        context = engine.get_runtime_context()
        return context.role, context.actor_id, context.task_id


@engine.remote
def add_through(handle, n):
    return engine.get(handle.add.remote(n))


def until(condition):
    """Waits for what the engine does in its own time; gives up loudly."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 30 s"
        gc.collect()
        time.sleep(0.005)


def name_is_free(name):
    try:
        engine.get_actor(name)
    except ValueError:
        return True
    return False


# --- state and calls ------------------------------------------------------------------------------------------


def test_state_stays_between_calls():
    counter = Counter.remote(10)
    assert engine.get(counter.add.remote()) == 11
    assert engine.get(counter.add.remote(5)) == 16
    assert engine.get(counter.read.remote()) == 16


def test_actors_have_their_own_state():
    a, b = Counter.remote(), Counter.remote(100)
    assert engine.get([a.add.remote(), b.add.remote(), a.add.remote()]) == [1, 101, 2]


def test_calls_of_one_caller_keep_their_order():
    @engine.remote
    class Log:
        def __init__(self):
            self.lines = []

        def write(self, line):
            self.lines.append(line)

        def read(self):
            return self.lines

    log = Log.remote()
    for i in range(500):
        log.write.remote(i)
    assert engine.get(log.read.remote()) == list(range(500))


def test_order_holds_when_arguments_come_late():
    @engine.remote
    def slow(value):
        return value

    counter = Counter.remote(1)
    refs = [counter.add.remote(slow.remote(10)), counter.add.remote(1), counter.read.remote()]
    assert engine.get(refs) == [11, 12, 12]


def test_arguments_of_calls():
    counter = Counter.remote()
    ref = engine.put("v")
    args, kwargs = engine.get(counter.echo.remote(ref, 1, [ref], key=ref, box={"r": ref}))
    assert args[:2] == ("v", 1) and kwargs["key"] == "v"
    assert engine.get([args[2][0], kwargs["box"]["r"]]) == ["v", "v"]


def test_refs_as_arguments_of_init():
    counter = Counter.remote(start=engine.put(5))
    assert engine.get(counter.read.remote()) == 5


def test_results_cannot_change_the_actors_state():
    @engine.remote
    class Keeper:
        def __init__(self):
            self.items = [1]
            self.array = np.zeros(3)

        def give(self):
            return self.items, self.array

        def bump(self):
            self.array[0] += 1  # its own array stays its own

    keeper = Keeper.remote()
    items, array = engine.get(keeper.give.remote())
    items.append(2)
    engine.get(keeper.bump.remote())
    assert array[0] == 0
    items, array = engine.get(keeper.give.remote())
    assert items == [1] and array[0] == 1


def test_a_failed_call_leaves_the_actor_alive():
    counter = Counter.remote()
    with pytest.raises(ValueError, match="in the actor") as caught:
        engine.get(counter.fail.remote())
    assert isinstance(caught.value, TaskError)
    assert caught.value.function.endswith("Counter.fail")
    assert engine.get(counter.read.remote()) == 100


def test_a_failed_argument_fails_the_call_only():
    counter = Counter.remote()
    with pytest.raises(ValueError, match="in the actor"):
        engine.get(counter.add.remote(counter.fail.remote()))
    assert engine.get(counter.add.remote()) == 101


def test_methods_with_several_returns():
    counter = Counter.remote(3)
    first, second = counter.pair.remote()
    assert engine.get([first, second]) == [3, -3]
    assert engine.get(counter.echo.options(num_returns=2).remote(1)) == [(1,), {}]
    with pytest.raises(ValueError, match="returned one int where num_returns=2"):
        engine.get(counter.read.options(num_returns=2).remote()[0])
    assert counter.add.options(num_returns=0).remote() is None
    assert engine.get(counter.read.remote()) == 4


def test_unknown_and_private_methods():
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"Counter has no public method 'ad'; it has: add, echo"):
        counter.ad
    with pytest.raises(TypeError, match=r"use \.add\.remote"):
        counter.add(1)
    with pytest.raises(TypeError, match=r"use Counter\.remote"):
        Counter()


def test_inheritance_static_and_class_methods():
    class Base:
        def who(self):
            return type(self).__name__

        @staticmethod
        def static(x):
            return x + 1

        @classmethod
        def klass(cls):
            return cls.__name__

    @engine.remote
    class Derived(Base):
        def __call__(self, x):
            return 2 * x

    actor = Derived.remote()
    refs = [actor.who.remote(), actor.static.remote(1), actor.klass.remote(), actor.__call__.remote(4)]
    assert engine.get(refs) == ["Derived", 2, "Derived", 8]


def test_context_inside_an_actor():
    counter = Counter.remote()
    role, actor_id, first = engine.get(counter.own_id.remote())
    _, same, second = engine.get(counter.own_id.remote())
    assert role == "worker"
    assert actor_id == same is not None
    assert first != second


# --- handles --------------------------------------------------------------------------------------------------


def test_handles_go_to_tasks_and_other_actors():
    @engine.remote
    class User:
        def __init__(self, counter):
            self.counter = counter

        def use(self, n):
            return engine.get(self.counter.add.remote(n))

    counter = Counter.remote()
    user = User.remote(counter)
    assert engine.get(add_through.remote(counter, 1)) == 1
    assert engine.get(user.use.remote(2)) == 3
    assert engine.get(counter.read.remote()) == 3


def test_handles_inside_data_and_as_results():
    @engine.remote
    def make():
        return {"counter": Counter.remote(7)}

    counter = engine.get(make.remote())["counter"]
    assert engine.get(counter.add.remote()) == 8
    again = engine.get(engine.put([counter]))[0]
    assert again == counter and hash(again) == hash(counter)
    assert engine.get(again.read.remote()) == 8


def test_an_actor_makes_actors_and_tasks():
    @engine.remote
    class Parent:
        def __init__(self):
            self.child = Counter.remote(1)

        def grow(self):
            refs = [add_through.remote(self.child, 1) for _ in range(3)]
            return max(engine.get(refs))

    assert engine.get(Parent.remote().grow.remote()) == 4


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


# --- names ----------------------------------------------------------------------------------------------------


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


# --- death ----------------------------------------------------------------------------------------------------


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
