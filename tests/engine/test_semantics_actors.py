"""Actors: state, order of calls, handles."""

import numpy as np
import pytest
from counters import Counter, add_through

from rlflow import engine
from rlflow.engine.exceptions import TaskError

pytestmark = pytest.mark.usefixtures("cluster")


# --- state and calls ---


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
        counter.ad  # noqa: B018
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


# --- handles ---


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


@engine.remote
class Introduces:
    def __init__(self):
        self.seen = 0

    def myself(self):
        return engine.get_runtime_context().current_actor

    def see(self):
        self.seen += 1
        return self.seen


def test_an_actor_can_pass_itself_on():
    actor = Introduces.remote()
    same = engine.get(actor.myself.remote())
    assert same == actor
    del actor
    assert engine.get([same.see.remote(), same.see.remote()]) == [1, 2]


def test_only_an_actor_has_itself():
    with pytest.raises(engine.exceptions.EngineStateError, match="no actor's method"):
        _ = engine.get_runtime_context().current_actor
