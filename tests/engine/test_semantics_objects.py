"""get, put and wait: what they take, what they give, what they refuse."""

import asyncio
import gc
import time

import pytest

from rlflow import engine
from rlflow.engine.exceptions import EngineError, GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")

VALUES = [
    0, -1, 2**70, 1.5, float("inf"), True, None, "", "Zürich", b"", b"\x00" * 1000, 3 + 4j, (), [], {}, set(),
    (1, "a", None), [1, [2, [3]]], {"a": {"b": (1, 2)}, 3: None}, {1, 2}, frozenset({1}), range(5), ..., int,
    len, bytearray(b"abc"), slice(1, 2),
]  # fmt: skip


@engine.remote
def identity(value):
    return value


@engine.remote
def add(a, b):
    return a + b


@engine.remote
def fail():
    raise ValueError("as it should")


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_went(value):
    put = engine.get(engine.put(value))
    returned = engine.get(identity.remote(value))
    assert put == value and type(put) is type(value)
    assert returned == value and type(returned) is type(value)


def test_get_of_one_ref_is_its_value():
    assert engine.get(add.remote(1, 2)) == 3


def test_get_of_a_list_keeps_its_order():
    refs = [identity.remote(i) for i in range(20)]
    assert engine.get(refs) == list(range(20))
    assert engine.get(refs[::-1]) == list(range(19, -1, -1))


def test_get_of_a_tuple_and_of_nothing():
    assert engine.get((identity.remote(1), identity.remote(2))) == [1, 2]
    assert engine.get([]) == []


def test_get_of_one_ref_many_times():
    ref = identity.remote([1])
    assert engine.get([ref, ref]) == [[1], [1]]
    assert engine.get(ref) == engine.get(ref)


def test_get_gives_each_caller_its_own_value():
    ref = engine.put({"items": [1, 2]})
    engine.get(ref)["items"].append(3)
    assert engine.get(ref) == {"items": [1, 2]}


def test_put_takes_the_value_of_now():
    value = [1, 2]
    ref = engine.put(value)
    value.append(3)
    assert engine.get(ref) == [1, 2]


def test_an_argument_is_taken_at_the_call():
    value = {"a": 1}
    ref = identity.remote(value)
    value["a"] = 2
    assert engine.get(ref) == {"a": 1}


def test_a_task_cannot_change_its_callers_argument():
    @engine.remote
    def append(items):
        items.append("more")
        return items

    items = ["one"]
    assert engine.get(append.remote(items)) == ["one", "more"]
    assert items == ["one"]


def test_put_of_a_ref_is_refused():
    with pytest.raises(TypeError, match=r"put\(\) of an ObjectRef"):
        engine.put(engine.put(1))


@pytest.mark.parametrize("wrong", [1, None, "ref", {"a": 1}, b"0" * 16])
def test_get_and_wait_of_something_else(wrong):
    with pytest.raises(TypeError, match=f"get.*ObjectRef.*{type(wrong).__name__}"):
        engine.get(wrong)
    with pytest.raises(TypeError, match=f"wait.*ObjectRef.*{type(wrong).__name__}"):
        engine.wait(wrong)


def test_get_and_wait_of_a_list_with_something_else():
    ref = engine.put(1)
    with pytest.raises(TypeError, match="int in the list"):
        engine.get([ref, 1])
    with pytest.raises(TypeError, match="list in the list"):
        engine.get([[ref]])
    with pytest.raises(TypeError, match="NoneType in the list"):
        engine.wait([ref, None])
    with pytest.raises(TypeError, match="ObjectRef"):
        engine.wait(ref)


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
def test_timeouts_are_checked(timeout):
    ref = engine.put(1)
    with pytest.raises(ValueError, match="timeout"):
        engine.get(ref, timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        engine.wait([ref], timeout=timeout)


def test_get_with_time_to_spare():
    assert engine.get(identity.remote(1), timeout=60) == 1
    assert engine.get(engine.put(1), timeout=0) == 1


def test_get_times_out(backend):
    if backend == "inline":
        return  # nothing is ever unfinished there; tasks that can never run: test_semantics_resources

    @engine.remote
    class Gate:
        def __init__(self):
            self.is_open = False

        def open(self):
            self.is_open = True

        def passes(self):
            return self.is_open

    @engine.remote
    def pass_through(gate):
        while not engine.get(gate.passes.remote()):
            time.sleep(0.001)
        return "done"

    gate = Gate.remote()
    ref = pass_through.remote(gate)
    with pytest.raises(GetTimeoutError) as caught:
        engine.get(ref, timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(GetTimeoutError):
        engine.get([engine.put(1), ref], timeout=0)
    assert engine.wait([ref], timeout=0) == ([], [ref])
    assert engine.wait([ref], timeout=0.05) == ([], [ref])
    gate.open.remote()
    assert engine.get(ref) == "done"  # a timeout of get cancels nothing


def test_wait_splits_in_order():
    refs = [identity.remote(i) for i in range(4)]
    ready, pending = engine.wait(refs, num_returns=4)
    assert (ready, pending) == (refs, [])


def test_wait_gives_at_most_num_returns():
    refs = [engine.put(i) for i in range(4)]
    ready, pending = engine.wait(refs)
    assert len(ready) == 1 and len(pending) == 3
    ready, pending = engine.wait(refs, num_returns=3, timeout=0)
    assert len(ready) == 3 and len(pending) == 1
    assert [r for r in refs if r in ready] == ready
    assert set(ready) | set(pending) == set(refs)


def test_wait_counts_failed_tasks_as_ready():
    failed = fail.remote()
    assert engine.wait([failed]) == ([failed], [])
    with pytest.raises(ValueError, match="as it should"):
        engine.get(failed)


def test_wait_in_rounds_sees_every_ref_once():
    pending, seen = [identity.remote(i) for i in range(10)], []
    while pending:
        ready, pending = engine.wait(pending)
        seen += engine.get(ready)
    assert sorted(seen) == list(range(10))


def test_wait_refuses_bad_arguments():
    ref = engine.put(1)
    with pytest.raises(ValueError, match="same ObjectRef twice"):
        engine.wait([ref, ref])
    for wrong in (0, 2, -1):
        with pytest.raises(ValueError, match="num_returns must be between 1 and 1"):
            engine.wait([ref], num_returns=wrong)


def test_refs_compare_and_hash_by_object():
    a, b = engine.put(1), engine.put(1)
    assert a != b and a == a and a != 1
    assert len({a, b, a}) == 2
    assert a.hex() in repr(a) and len(bytes.fromhex(a.hex())) == len(a.binary())


def test_a_ref_cannot_be_pickled_outside_of_the_engine():
    import pickle

    with pytest.raises(TypeError, match="cannot be pickled outside of the engine"):
        pickle.dumps(engine.put(1))


def test_future_and_await():
    assert identity.remote("f").future().result(timeout=60) == "f"
    assert isinstance(fail.remote().future().exception(timeout=60), ValueError)

    async def program():
        first = await identity.remote("a")
        rest = await asyncio.gather(*[asyncio.wrap_future(add.remote(i, 1).future()) for i in range(3)])
        with pytest.raises(ValueError, match="as it should"):
            await fail.remote()
        return first, rest

    assert asyncio.run(program()) == ("a", [1, 2, 3])


def test_a_value_lives_while_something_holds_it():
    """A ref inside a stored value holds its object after the ref itself is gone."""
    inner = engine.put("inner")
    outer = engine.put([inner])
    del inner
    gc.collect()
    [again] = engine.get(outer)
    del outer
    gc.collect()
    assert engine.get(again) == "inner"


def test_arguments_live_until_the_task_has_run():
    refs = [add.remote(engine.put(i), identity.remote(i)) for i in range(20)]
    assert engine.get(refs) == [2 * i for i in range(20)]


def test_a_ref_of_an_engine_that_was_shut_down(backend):
    old = engine.put(1)
    engine.shutdown()
    engine.init(backend=backend, num_cpus=1)
    with pytest.raises(EngineError):
        engine.get(old, timeout=30)
    with pytest.raises(EngineError):
        engine.get(identity.remote(old), timeout=30)
    assert engine.get(engine.put(2)) == 2
