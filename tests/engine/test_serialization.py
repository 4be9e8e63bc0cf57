"""Pickling: what goes beside the pickle, and errors that say where it failed."""

import pickle
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlflow.engine.exceptions import ActorDiedError, SerializationError, TaskError
from rlflow.engine.functions import export, load, split_returns
from rlflow.engine.refs import ObjectRef, capture_refs, set_ref_host
from rlflow.engine.serialization import (
    MAX_ERROR_BYTES,
    dump_engine_error,
    dump_error,
    dumps,
    load_error,
    loads,
)


def round_trip(value):
    packed = dumps(value)
    return loads(packed.data, buffers=[bytes(b.raw()) for b in packed.buffers])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain)
def test_plain_values(value):
    back = round_trip(value)
    assert back == value and type(back) is type(value)


def test_buffers_go_beside_the_pickle():
    array = np.arange(10_000.0)
    packed = dumps({"a": array, "b": [array[:5000].copy()]})
    assert len(packed.data) < 1000
    assert [b.raw().nbytes for b in packed.buffers] == [80_000, 40_000]
    assert packed.nbytes() == len(packed.data) + 120_000


def test_refs_inside_are_collected():
    refs = [ObjectRef(bytes([i]) * 16) for i in range(3)]
    packed = dumps({"a": refs[0], "b": [refs[1], (refs[2],)], "c": 1})
    assert packed.refs == refs
    assert dumps([1, 2]).refs == []


def test_captures_nest():
    a, b = ObjectRef(b"a" * 16), ObjectRef(b"b" * 16)
    with capture_refs() as outer:
        pickle.dumps(a)
        with capture_refs() as inner:
            pickle.dumps(b)
        pickle.dumps(a)
    assert (outer, inner) == ([a, a], [b])
    with pytest.raises(SerializationError):
        pickle.dumps(a)


def test_a_ref_is_not_loaded_where_no_engine_runs():
    set_ref_host(None)
    packed = dumps([ObjectRef(b"a" * 16)])
    with pytest.raises(RuntimeError, match="no engine is running"):
        loads(packed.data)


class Node:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda bad: {"outer": [0, {"inner": bad}]}, r"\['outer'\]\[1\]\['inner'\]"),
        (lambda bad: Node(child=Node(lock=bad)), r"child\.lock"),
        (lambda bad: [Node(items=(1, bad))], r"\[0\]\.items\[1\]"),
        (lambda bad: {3: bad}, r"\[3\]"),
    ],
    ids=["dicts and lists", "attributes", "mixed", "int key"],
)
def test_the_path_to_what_cannot_be_pickled(value, path):
    for bad, kind in ((threading.Lock(), "lock"), (sys._getframe(), "frame")):
        with pytest.raises(SerializationError, match=f"{kind} at {path} cannot travel"):
            dumps(value(bad))


def test_the_path_through_a_function():
    guard, options = threading.Lock(), {"hook": None}

    def captures():
        return guard

    def indirect(default=options):
        return captures()

    with pytest.raises(SerializationError, match=r"function or class .*captures: lock at guard "):
        export(captures)
    with pytest.raises(SerializationError, match=r"lock at captures\.guard "):
        export(indirect)


def test_a_value_in_a_circle_is_named_without_end():
    circle = {"lock": threading.Lock()}
    circle["self"] = circle
    with pytest.raises(SerializationError, match="lock"):
        dumps(circle)


def test_a_value_that_refuses_to_be_pickled_is_quoted():
    class Refuses:
        def __reduce__(self):
            raise RuntimeError("not this one")

    with pytest.raises(SerializationError, match=r"Refuses.*RuntimeError: not this one"):
        dumps(Refuses())


# --- functions ---


def test_exported_functions_are_named_by_content():
    def make(n):
        def inner():
            return n

        return inner

    one, same, other = export(make(1)), export(make(1)), export(make(2))
    assert one.id == same.id != other.id
    assert load(one.blob)() == 1
    assert one.name.endswith("make.<locals>.inner")


@pytest.mark.parametrize(("result", "n", "values"), [([1], 1, [[1]]), (5, 0, []), ((1, 2), 2, [1, 2])])
def test_split_returns(result, n, values):
    assert split_returns(result, n) == values


@pytest.mark.parametrize(
    ("result", "message"), [((1, 2, 3), "3 values"), (b"ab", "one bytes"), (None, "one NoneType")]
)
def test_split_returns_of_a_wrong_number(result, message):
    with pytest.raises(ValueError, match=f"returned {message} where num_returns=2"):
        split_returns(result, 2)


# --- errors ---


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_task_error_round_trip():
    loaded = load_error(dump_error("f", raised(KeyError("k")), "worker 1 (pid 2)"))
    assert isinstance(loaded, TaskError) and isinstance(loaded, KeyError)
    assert (loaded.function, loaded.worker) == ("f", "worker 1 (pid 2)")
    assert "KeyError: 'k'" in loaded.remote_traceback
    again = pickle.loads(pickle.dumps(loaded))
    assert isinstance(again, KeyError) and str(again) == str(loaded)


def test_a_task_error_inside_a_task_stays_the_first():
    inner = load_error(dump_error("inner", raised(KeyError("k")), "worker 1"))
    outer = load_error(dump_error("outer", raised(inner), "worker 2"))
    assert (outer.function, outer.worker) == ("inner", "worker 1")
    assert isinstance(outer, KeyError)


def test_a_cause_whose_module_is_gone():
    module = sys.modules["vanishing"] = types.ModuleType("vanishing")
    module.GoneError = type("GoneError", (Exception,), {"__module__": "vanishing"})
    try:
        data = dump_error("f", raised(module.GoneError("text")), "w")
    finally:
        del sys.modules["vanishing"]
    loaded = load_error(data)
    assert type(loaded) is TaskError and loaded.cause is None
    assert "GoneError: text" in str(loaded) and "cannot be loaded here" in str(loaded)


def test_a_huge_cause_is_left_behind():
    data = dump_error("f", raised(ValueError("x" * (2 * MAX_ERROR_BYTES))), "w")
    assert len(data) < MAX_ERROR_BYTES
    assert load_error(data).cause is None


def test_a_system_exit_is_no_exit_for_who_loads_it():
    loaded = load_error(dump_error("f", raised(SystemExit(3)), "w"))
    assert isinstance(loaded, TaskError) and not isinstance(loaded, SystemExit)
    assert isinstance(loaded.cause, SystemExit) and loaded.cause.code == 3


def test_engine_errors_keep_their_causes():
    error = ActorDiedError("dead")
    error.__cause__ = load_error(dump_error("A.__init__", raised(ValueError("why")), "w"))
    loaded = load_error(dump_engine_error(error))
    assert isinstance(loaded, ActorDiedError) and str(loaded) == "dead"
    assert isinstance(loaded.__cause__, ValueError) and "why" in str(loaded.__cause__)
    chained = ActorDiedError("outer")
    chained.__cause__ = OSError(2, "inner")
    assert load_error(dump_engine_error(chained)).__cause__.errno == 2
