"""Errors of tasks: their class, their traceback, and exceptions that are hard to carry."""

import sys
import threading
import traceback
import types

import pytest

from rlflow import engine
from rlflow.engine import exceptions
from rlflow.engine.exceptions import EngineError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")


class CodedError(Exception):
    """Its ``__init__`` wants other arguments than those it hands to Exception."""

    def __init__(self, code, *, hint):
        super().__init__(f"code {code}: {hint}")
        self.code = code
        self.hint = hint


class SlottedError(Exception):
    __slots__ = ("place",)

    def __init__(self, place):
        super().__init__(place)
        self.place = place


class FinalError(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclasses, please")


class HolderError(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


@engine.remote
def identity(value):
    return value


@engine.remote
def fail(error):
    raise error


def error_of(ref):
    with pytest.raises(EngineError) as caught:
        engine.get(ref)
    return caught.value


@engine.remote
def fail_deep():
    def helper_in_the_task():
        return {}["missing-key"]

    return helper_in_the_task()


def test_the_error_is_of_both_classes():
    with pytest.raises(KeyError):
        engine.get(fail_deep.remote())
    error = error_of(fail_deep.remote())
    assert isinstance(error, TaskError) and isinstance(error, KeyError) and isinstance(error, EngineError)
    assert isinstance(error.cause, KeyError) and error.cause.args == ("missing-key",)
    assert error.__cause__ is error.cause
    assert not isinstance(error, ValueError)


def test_the_remote_traceback_is_in_the_text():
    error = error_of(fail_deep.remote())
    here = __file__.rsplit("/", 1)[-1]
    for expected in ("fail_deep", "helper_in_the_task", "KeyError", "missing-key", here):
        assert expected in error.remote_traceback
        assert expected in str(error)
    assert error.function.endswith("fail_deep")
    assert str(error).startswith(f"{error.function} failed on {error.worker}")
    assert "pid" in error.worker


def test_the_remote_traceback_begins_with_the_users_code():
    lines = error_of(fail_deep.remote()).remote_traceback.splitlines()
    assert lines[0].startswith("Traceback")
    assert "in fail_deep" in lines[1]


def test_it_prints_well_when_nobody_catches_it():
    error = error_of(fail_deep.remote())
    text = "".join(traceback.format_exception(error))
    assert "helper_in_the_task" in text and "TaskError(KeyError)" in text


def test_each_get_raises_anew():
    ref = fail_deep.remote()
    first, second = error_of(ref), error_of(ref)
    assert first is not second
    assert str(first) == str(second)


def test_a_chain_of_causes_is_in_the_traceback():
    @engine.remote
    def chained():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    error = error_of(chained.remote())
    assert isinstance(error, ValueError)
    assert "KeyError: 'first'" in str(error) and "direct cause" in str(error)


def test_an_exception_with_another_init():
    error = error_of(fail_coded.remote(7))
    assert isinstance(error, CodedError)
    assert (error.code, error.hint) == (7, "so it goes")
    assert isinstance(error.cause, CodedError) and error.cause.code == 7
    assert "code 7: so it goes" in str(error)


@engine.remote
def fail_coded(code):
    raise CodedError(code, hint="so it goes")


def test_an_exception_of_a_local_class_with_another_init():
    class LocalError(Exception):
        def __init__(self, a, b):
            super().__init__("one text")
            self.pair = (a, b)

    @engine.remote
    def task():
        raise LocalError(1, 2)

    error = error_of(task.remote())
    assert type(error.cause).__name__ == "LocalError"
    assert error.pair == (1, 2)


def test_attributes_of_an_exception():
    @engine.remote
    def missing_file():
        open("/no/such/file")  # noqa: SIM115

    @engine.remote
    def slotted():
        raise SlottedError("here")

    @engine.remote
    def noted():
        error = ValueError("x")
        error.extra = {"step": 3}
        raise error

    error = error_of(missing_file.remote())
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (2, "/no/such/file")
    slots = error_of(slotted.remote())
    assert isinstance(slots, SlottedError) and slots.cause.place == "here" and slots.place == "here"
    assert error_of(noted.remote()).extra == {"step": 3}


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        ImportError("no", name="mod"),
        OSError(28, "full"),
        AssertionError(),
        RuntimeError("two", "args"),
        TimeoutError("slow"),
        MemoryError(),
        SyntaxError("odd", ("file", 1, 2, "text")),
    ],
    ids=lambda e: type(e).__name__,
)
def test_builtin_exceptions(error):
    caught = error_of(fail.remote(error))
    assert isinstance(caught, type(error))
    assert isinstance(caught.cause, type(error)) and caught.cause.args == error.args


def test_a_class_that_cannot_be_derived_from():
    @engine.remote
    def task():
        raise FinalError("as it is")

    error = error_of(task.remote())
    assert isinstance(error, TaskError)
    assert isinstance(error.cause, FinalError)
    assert "FinalError: as it is" in str(error)


def test_an_exception_that_cannot_be_pickled():
    @engine.remote
    def task():
        raise HolderError("with a lock")

    error = error_of(task.remote())
    assert isinstance(error, TaskError)
    assert error.cause is None
    assert "HolderError: with a lock" in str(error)


def test_an_exception_whose_class_the_caller_cannot_import(monkeypatch):
    monkeypatch.delitem(sys.modules, "ghost_module", raising=False)

    @engine.remote
    def task():
        module = types.ModuleType("ghost_module")
        sys.modules["ghost_module"] = module
        module.GhostError = type("GhostError", (Exception,), {"__module__": "ghost_module"})
        raise module.GhostError("boo")

    error = error_of(task.remote())
    sys.modules.pop("ghost_module", None)
    assert isinstance(error, TaskError)
    assert "GhostError: boo" in str(error)


def test_a_huge_exception_is_cut():
    @engine.remote
    def task():
        raise ValueError("start " + "x" * 20_000_000 + " end")

    error = error_of(task.remote())
    assert len(str(error)) < 100_000
    assert "start" in str(error) and "end" in str(error) and "characters cut" in str(error)


def test_a_very_deep_recursion_in_a_task():
    @engine.remote
    def endless():
        def again(n):
            return again(n + 1)

        return again(0)

    assert isinstance(error_of(endless.remote()), RecursionError)


def test_an_exception_whose_str_fails():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    @engine.remote
    def task():
        raise MuteError

    assert "MuteError" in str(error_of(task.remote()))


def test_several_returns_fail_together():
    refs = fail.options(num_returns=2).remote(ValueError("both"))
    for ref in refs:
        assert isinstance(error_of(ref), ValueError)


def test_a_failing_task_without_returns_harms_nobody():
    assert fail.options(num_returns=0).remote(ValueError("unseen")) is None
    assert engine.get(identity.remote(1)) == 1


def test_the_first_failure_of_a_list_is_raised():
    refs = [identity.remote(1), fail.remote(KeyError("a"))]
    with pytest.raises(KeyError):
        engine.get(refs)


def test_a_failed_argument_fails_the_task_with_that_error():
    @engine.remote
    def never_runs(*args, **kwargs):
        return "ran"

    failed = fail_deep.remote()
    for ref in (
        never_runs.remote(failed),
        never_runs.remote(1, key=failed),
        never_runs.remote(never_runs.remote(failed)),
    ):
        error = error_of(ref)
        assert isinstance(error, KeyError)
        assert error.function.endswith("fail_deep")


def test_a_failed_ref_inside_data_fails_only_who_gets_it():
    @engine.remote
    def try_it(box):
        try:
            engine.get(box[0])
        except KeyError as error:
            return type(error.cause).__name__

    failed = fail_deep.remote()
    assert engine.get(try_it.remote([failed])) == "KeyError"
    [same] = engine.get(identity.remote([failed]))
    assert isinstance(error_of(same), KeyError)


def test_an_error_passes_through_nested_tasks_with_its_first_traceback():
    @engine.remote
    def middle():
        return engine.get(fail_deep.remote())

    @engine.remote
    def outer():
        return engine.get(middle.remote())

    error = error_of(outer.remote())
    assert isinstance(error, KeyError)
    assert "helper_in_the_task" in str(error)


def test_an_error_can_be_returned_and_put_as_a_value():
    @engine.remote
    def caught():
        try:
            engine.get(fail_deep.remote())
        except KeyError as error:
            return error

    error = engine.get(caught.remote())
    assert isinstance(error, TaskError) and isinstance(error, KeyError)
    value = engine.get(engine.put(ValueError("a value")))
    assert isinstance(value, ValueError)


def test_exit_in_a_task_does_not_end_the_program():
    @engine.remote(max_retries=0)
    def leave():
        sys.exit(3)

    assert isinstance(error_of(leave.remote()), EngineError)
    assert engine.get(identity.remote("still here")) == "still here"


def test_errors_under_rays_names():
    assert exceptions.RayTaskError is TaskError
    assert exceptions.RayError is EngineError
    assert issubclass(exceptions.GetTimeoutError, TimeoutError)
