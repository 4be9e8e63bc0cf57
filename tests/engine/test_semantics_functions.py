"""Functions and classes on their way to a worker: by value, by reference, and when they cannot go."""

import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from rlflow import engine
from rlflow.engine.exceptions import SerializationError
from rlflow.engine.functions import LoadedFunctions

FACTOR = 3


class Money:
    """Of an importable module: travels by reference."""

    def __init__(self, amount):
        self.amount = amount

    def __eq__(self, other):
        return isinstance(other, Money) and self.amount == other.amount


def triple(x):
    return FACTOR * x


@engine.remote
def identity(value):
    return value


@pytest.mark.usefixtures("cluster")
class TestCode:
    def test_lambda(self):
        assert engine.get(engine.remote(lambda x: x + 1).remote(1)) == 2

    def test_closure_is_taken_by_value(self):
        base, seen = 10, []

        @engine.remote
        def add(x):
            seen.append(x)
            return base + x, len(seen)

        assert engine.get(add.remote(1))[0] == 11
        assert seen == []

    def test_globals_of_the_module(self):
        @engine.remote
        def use(x):
            return triple(x) + FACTOR

        assert engine.get(use.remote(2)) == 9

    def test_a_module_level_function_made_remote_under_another_name(self):
        assert engine.get(engine.remote(triple).remote(2)) == 6

    def test_recursion_through_the_own_name(self):
        @engine.remote
        def factorial(n):
            return 1 if n <= 1 else n * engine.get(factorial.remote(n - 1))

        assert engine.get(factorial.remote(6)) == 720

    def test_two_functions_that_call_each_other(self):
        @engine.remote
        def even(n):
            return n == 0 or engine.get(odd.remote(n - 1))

        @engine.remote
        def odd(n):
            return n != 0 and engine.get(even.remote(n - 1))

        assert engine.get([even.remote(6), even.remote(7)]) == [True, False]

    def test_redefinition(self):
        """As in a notebook: the cell runs again with another body."""

        def define(version):
            @engine.remote
            def current():
                return version

            return current

        first, second = define(1), define(2)
        assert engine.get([first.remote(), second.remote(), first.remote()]) == [1, 2, 1]

    def test_redefinition_with_the_same_source_and_other_globals(self):
        spaces = [{"engine": engine, "value": i} for i in range(3)]
        for space in spaces:
            exec("@engine.remote\ndef read():\n    return value", space)
        assert engine.get([space["read"].remote() for space in spaces]) == [0, 1, 2]

    def test_functions_and_classes_as_values(self):
        class Local:
            label = "local"

        @engine.remote
        def call(function, cls):
            return function(2), cls().label

        assert engine.get(call.remote(lambda x: x * 10, Local)) == (20, "local")
        assert engine.get(identity.remote(triple))(3) == 9

    def test_instances_of_importable_and_of_local_classes(self):
        class Point:
            def __init__(self, x):
                self.x = x

        assert engine.get(identity.remote(Money(5))) == Money(5)
        point = engine.get(identity.remote(Point(4)))
        assert type(point).__name__ == "Point" and point.x == 4

    def test_a_remote_function_as_an_argument_and_a_result(self):
        @engine.remote
        def apply(function, x):
            return engine.get(function.remote(x))

        assert engine.get(apply.remote(identity, "x")) == "x"
        assert engine.get(engine.get(identity.remote(identity)).remote("y")) == "y"

    def test_a_callable_object(self):
        class Adder:
            def __init__(self, n):
                self.n = n

            def __call__(self, x):
                return x + self.n

        assert engine.get(engine.remote(Adder(5)).remote(1)) == 6

    def test_keyword_only_and_builtin_functions(self):
        assert engine.get(engine.remote(sorted).remote([2, 1], reverse=True)) == [2, 1]
        assert engine.get(engine.remote(divmod).options(num_returns=2).remote(7, 3)) == [2, 1]

    def test_names_and_docs_are_kept(self):
        @engine.remote
        def documented():
            """What it does."""

        assert documented.__name__ == "documented"
        assert documented.__doc__ == "What it does."
        assert documented.__wrapped__() is None

    def test_direct_calls_are_refused_with_the_way_out(self):
        with pytest.raises(TypeError, match=r"identity cannot be called directly: use identity\.remote"):
            identity(1)


@pytest.mark.usefixtures("cluster")
class TestWhatCannotTravel:
    def test_an_argument_names_its_path(self):
        with pytest.raises(SerializationError, match=r"lock at .*\['outer'\]\[1\]\.lock cannot travel"):
            holder = type("Holder", (), {})()
            holder.lock = threading.Lock()
            identity.remote({"outer": [0, holder]})

    def test_put(self):
        with pytest.raises(SerializationError, match="lock"):
            engine.put([threading.Lock()])

    def test_a_result_fails_the_task(self):
        @engine.remote
        def give():
            return {"guard": threading.Lock()}

        with pytest.raises(SerializationError, match=r"lock at \['guard'\]"):
            engine.get(give.remote())

    def test_one_bad_result_fails_all_of_one_task(self):
        @engine.remote(num_returns=2)
        def give():
            return 1, threading.Lock()

        for ref in give.remote():
            with pytest.raises(SerializationError):
                engine.get(ref)

    def test_a_captured_variable_is_named(self):
        guard = threading.Lock()

        @engine.remote
        def guarded():
            with guard:
                return 1

        with pytest.raises(SerializationError, match=r"guarded.*lock at guard"):
            guarded.remote()

    def test_an_actor_class_and_its_arguments(self):
        guard = threading.Lock()

        @engine.remote
        class Guarded:
            def use(self):
                return guard

        with pytest.raises(SerializationError, match="Guarded"):
            Guarded.remote()

        @engine.remote
        class Holder:
            def __init__(self, value):
                self.value = value

            def set(self, value):
                self.value = value

        with pytest.raises(SerializationError, match="lock"):
            Holder.remote(guard)
        holder = Holder.remote(1)
        with pytest.raises(SerializationError, match="lock"):
            holder.set.remote(guard)

    def test_a_value_that_cannot_be_loaded_fails_the_task(self):
        class Brittle:
            def __setstate__(self, state):
                raise RuntimeError("does not load")

        brittle = Brittle()
        brittle.x = 1
        with pytest.raises(RuntimeError, match="does not load"):
            engine.get(identity.remote(brittle))
        assert engine.get(identity.remote(1)) == 1

    def test_a_function_that_cannot_be_loaded_fails_its_tasks(self):
        """Its module is there for the submitter only, so the worker cannot import it."""

        class Broken:
            def __call__(self):
                return 1

            def __reduce__(self):
                return __import__, ("no_such_module_anywhere",)

        broken = engine.remote(Broken())
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
                engine.get(broken.remote())
        assert engine.get(identity.remote(1)) == 1


class TestWhatRemoteRefuses:
    def test_what_is_no_function(self):
        with pytest.raises(TypeError, match="function or a class"):
            engine.remote(num_cpus=1)(42)
        with pytest.raises(TypeError, match="keyword options only"):
            engine.remote(42)
        with pytest.raises(TypeError, match="keyword options only"):
            engine.remote(triple, num_cpus=1)

    def test_what_is_remote_already(self):
        with pytest.raises(TypeError, match="identity is remote already"):
            engine.remote(identity)

    def test_generators_and_coroutines(self):
        def generator():
            yield 1

        async def coroutine():
            return 1

        class Asynchronous:
            async def method(self):
                yield 1

        with pytest.raises(NotImplementedError, match=r"generators.*generator"):
            engine.remote(generator)
        with pytest.raises(NotImplementedError, match=r"coroutines.*coroutine"):
            engine.remote(coroutine)
        with pytest.raises(NotImplementedError, match=r"async generators.*method"):
            engine.remote(Asynchronous).remote()


def defined_again(version):
    held = Money(version)

    @engine.remote
    def step():
        versions = {item.amount for item in gc.get_objects() if type(item).__name__ == "Money"}
        return held.amount, len(versions), os.getpid()

    return step


def test_old_versions_of_a_function_are_forgotten(cluster):
    """What a notebook does when a cell is run again and again."""
    found = [engine.get(defined_again(version).remote()) for version in range(30)]
    assert [amount for amount, _, _ in found] == list(range(30))
    assert max(held for _, held, _ in found) <= LoadedFunctions.OF_ONE_NAME + 1


def test_functions_that_share_a_name_are_told_apart(cluster):
    steps = [defined_again(version) for version in range(2 * LoadedFunctions.OF_ONE_NAME)]
    for _ in range(3):
        assert [engine.get(step.remote())[0] for step in steps] == list(range(len(steps)))


def test_loaded_functions_are_bounded():
    loaded = LoadedFunctions()
    count = LoadedFunctions.IN_ALL + 10
    for i in range(count):
        loaded.add(i.to_bytes(4, "big"), f"function {i}", print)
    assert loaded.get((9).to_bytes(4, "big")) is None
    assert loaded.get((10).to_bytes(4, "big")) is print
    assert len(loaded._ids) == len(loaded._loaded) == LoadedFunctions.IN_ALL


SCRIPT = """
    import sys
    from dataclasses import dataclass
    from rlflow import engine

    SCALE = 10

    class Failure(Exception):
        pass

    @dataclass
    class Point:
        x: int

    def scaled(p):
        return Point(p.x * SCALE)

    @engine.remote
    def work(p):
        assert isinstance(p, Point), type(p)
        if p.x < 0:
            raise Failure(p.x)
        return scaled(p)

    @engine.remote
    class Keeper:
        def __init__(self):
            self.points = []

        def keep(self, p):
            self.points.append(p)
            return self.points

    if __name__ == "__main__":
        engine.init(backend=sys.argv[1], num_cpus=2)
        assert engine.get(work.remote(Point(2))) == Point(20)
        assert engine.get(Keeper.remote().keep.remote(Point(3))) == [Point(3)]
        try:
            engine.get(work.remote(Point(-1)))
        except Failure as error:
            assert isinstance(error, engine.exceptions.TaskError)
            print("caught", error.cause.args[0])
        engine.shutdown()
"""


def test_code_of_main_travels_by_value(backend, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, str(script), backend], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("caught -1\n", "")
