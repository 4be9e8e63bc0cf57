"""Values on the wire: pickle 5 with the large buffers beside the pickle, so that arrays need no copy.

A serialised value is ``[pickle, buffer, buffer, ...]``. C pickle is tried first where it is known to be right
(plain scalars, strings, numeric arrays); whatever may hold code of ``__main__``, which another process can only
load by value, goes through cloudpickle. Refs inside the value are collected on the way (see ``refs.capture_refs``).
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from .exceptions import SerializationError, TaskError
from .refs import ADOPT, ObjectRef, capture_refs

MAX_TRACEBACK_CHARS = 20_000
MAX_ERROR_BYTES = 1_000_000
_ENGINE_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
INLINE_BYTES = 8 * 1024
"""Larger values go through shared memory."""

NONE = pickle.dumps(None, protocol=5)

loads = pickle.loads
"""``loads(data, buffers=...)``: what :func:`dumps` made."""

_SCALARS = frozenset((int, float, bool, str, bytes, complex, type(None), np.float32, np.float64, np.int32, np.int64))


class Serialized:
    """A pickled value: the pickle, its out-of-band buffers and the refs inside it."""

    __slots__ = ("buffers", "data", "refs")

    def __init__(self, data: bytes, buffers: list[pickle.PickleBuffer], refs: list[ObjectRef]) -> None:
        self.data = data
        self.buffers = buffers
        self.refs = refs

    def nbytes(self) -> int:
        return len(self.data) + sum(buffer.raw().nbytes for buffer in self.buffers)


def dump_scalar(value: Any) -> bytes | None:
    """The pickle of a plain scalar or string; None for anything else."""
    if value is None:
        return NONE
    return pickle.dumps(value, protocol=5) if type(value) in _SCALARS else None


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Serialized:
    """Like ``dumps((args, kwargs))``, and quicker when they are plain."""
    arrays = False
    for values in (args, kwargs.values()):
        for value in values:
            if type(value) not in _SCALARS:
                if not _is_plain_array(value):
                    return dumps((args, kwargs))
                arrays = True
    return _dump_arrays((args, kwargs)) if arrays else Serialized(pickle.dumps((args, kwargs), protocol=5), [], [])


def dumps(value: Any) -> Serialized:
    """Pickles ``value``; raises SerializationError that names the part that failed."""
    kind = type(value)
    if kind in _SCALARS:
        return Serialized(pickle.dumps(value, protocol=5), [], [])
    if _is_plain_array(value):
        return _dump_arrays(value)
    if kind in (tuple, list) and all(type(item) in _SCALARS for item in value):
        return Serialized(pickle.dumps(value, protocol=5), [], [])
    buffers: list[pickle.PickleBuffer] = []
    stream = BytesIO()
    try:
        with capture_refs() as refs:
            cloudpickle.Pickler(stream, protocol=5, buffer_callback=_collect(buffers)).dump(value)
    except SerializationError:
        raise
    except Exception as error:
        raise explain_pickling_failure(value, error, what=f"a value of type {kind.__qualname__}") from error
    return Serialized(stream.getvalue(), buffers, refs)


def _is_plain_array(value: Any) -> bool:
    return type(value) is np.ndarray and not value.dtype.hasobject


def _reduce_array(array: NDArray[Any]) -> Any:
    dtype = array.dtype
    if dtype.kind in "biufc" and dtype.isnative and array.flags.c_contiguous and array.size:
        return _load_array, (dtype.char, array.shape, pickle.PickleBuffer(array))  # type: ignore[arg-type]
    return array.__reduce_ex__(5)


def _load_array(dtype: str, shape: tuple[int, ...], buffer: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape)


class _ArrayPickler(pickle.Pickler):
    """For arrays of numbers: NumPy's own way spends most of its time on the type."""

    dispatch_table = {np.ndarray: _reduce_array}  # noqa: RUF012 (an instance variable, says the base class)


def _dump_arrays(value: Any) -> Serialized:
    buffers: list[pickle.PickleBuffer] = []
    stream = BytesIO()
    _ArrayPickler(stream, 5, buffer_callback=_collect(buffers)).dump(value)
    return Serialized(stream.getvalue(), buffers, [])


def _collect(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def callback(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffer.raw()
        except BufferError:  # not contiguous: pickle it in-band
            return True
        buffers.append(buffer)
        return False

    return callback


def dump_error(function: str, error: BaseException, worker: str) -> bytes:
    """A failed task's error as bytes: always loadable, whatever the exception holds; cut when it is huge."""
    if isinstance(error, TaskError):  # of a task this one waited for: keep the innermost account
        function, trace, cause, worker = error.function, error.remote_traceback, error.cause, error.worker
    else:
        trace = "".join(traceback.format_exception(type(error), error, _own_frames_off(error)))
        cause = error
        if len(trace) > MAX_TRACEBACK_CHARS:
            half = MAX_TRACEBACK_CHARS // 2
            trace = f"{trace[:half]}\n... {len(trace) - 2 * half} characters cut ...\n{trace[-half:]}"
    # The cause is a pickle inside the pickle: where it cannot be loaded, the rest still can.
    return pickle.dumps(_Travelling(_load_task_error, (function, trace, worker, _dump_cause(cause))), protocol=5)


def dump_engine_error(error: BaseException) -> bytes:
    """An error of the engine's own, with its ``__cause__``, which pickle alone would lose."""
    cause: bytes | None = None
    if isinstance(error.__cause__, TaskError):
        cause = dump_error("", error.__cause__, "")
    elif error.__cause__ is not None:
        cause = dump_engine_error(error.__cause__)
    return pickle.dumps(_Travelling(_load_engine_error, (cloudpickle.dumps(error, protocol=5), cause)), protocol=5)


def load_error(data: bytes | memoryview) -> BaseException:
    """The error of :func:`dump_error` or :func:`dump_engine_error`, a new instance each time."""
    error: BaseException = pickle.loads(data)
    return error


class _Travelling:
    """Pickles as a call."""

    def __init__(self, call: Callable[..., BaseException], arguments: tuple[Any, ...]) -> None:
        self._call = (call, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def _load_task_error(function: str, trace: str, worker: str, cause: bytes | None) -> TaskError:
    loaded: BaseException | None = None
    if cause is not None:
        try:
            loaded = pickle.loads(cause)
        except Exception as error:  # its class lives in a module that only the worker has
            trace = f"{trace.rstrip()}\n(the exception itself cannot be loaded here: {type(error).__name__}: {error})"
    return TaskError(function, trace, loaded, worker).as_instanceof_cause()


def _load_engine_error(error: bytes, cause: bytes | None) -> BaseException:
    loaded: BaseException = pickle.loads(error)
    if cause is not None:
        loaded.__cause__ = load_error(cause)
    return loaded


def _dump_cause(cause: BaseException | None) -> bytes | None:
    """The exception as bytes that load; ``None`` when it cannot be pickled or is huge."""
    if cause is None:
        return None
    for pickler in (cloudpickle.Pickler, _ErrorPickler):
        stream = BytesIO()
        try:
            with capture_refs():
                pickler(stream, protocol=5).dump(cause)
            data = stream.getvalue()
            if len(data) <= MAX_ERROR_BYTES and isinstance(pickle.loads(data), BaseException):
                return data
        except Exception:  # the traceback text still says all there is to say
            continue
    return None


class _ErrorPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """For exceptions whose ``__init__`` wants other arguments than ``args``: they pickle well and load badly."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseException) and not isinstance(value, TaskError):
            return _bare_exception, (type(value), value.args), value.__dict__ or None
        return super().reducer_override(value)


def _bare_exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    error = cls.__new__(cls)
    error.args = args
    return error


def _own_frames_off(error: BaseException) -> Any:
    """The traceback from the user's first frame on; the engine's own frames on top help nobody."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_ENGINE_FOLDER):
            break
        trace = trace.tb_next
    return trace


class _Lending(pickle.Unpickler):
    """Takes the refs inside a value from a mapping, without a step of Python's for each."""

    def __init__(self, data: Any, buffers: Iterable[Any], refs: Mapping[bytes, ObjectRef]) -> None:
        super().__init__(BytesIO(data), buffers=buffers)
        self._refs = refs

    def find_class(self, module: str, name: str) -> Any:
        if name == ADOPT.__name__ and module == ADOPT.__module__:
            return self._refs.__getitem__
        return super().find_class(module, name)


def loads_lending(data: Any, buffers: Iterable[Any] = (), *, refs: Mapping[bytes, ObjectRef]) -> Any:
    """Like ``loads``; the refs inside are those of ``refs``, by id."""
    return _Lending(data, buffers, refs).load()


def explain_pickling_failure(value: Any, error: BaseException, what: str) -> SerializationError:
    """An error that says which part of ``value`` cannot be pickled."""
    path, culprit = _culprit(value, (), 0, set())
    where = f" at {path}" if path else ""
    return SerializationError(
        f"cannot pickle {what}: {type(culprit).__qualname__}{where} cannot travel to another process "
        f"({type(error).__name__}: {error}). Create it inside the task, or leave it out of what the task captures."
    )


def _culprit(value: Any, path: tuple[str, ...], depth: int, seen: set[int]) -> tuple[str, Any]:
    """Walks into ``value`` along the parts that fail to pickle, at most six levels deep."""
    if depth < 6 and id(value) not in seen:
        seen.add(id(value))
        for name, part in _parts(value):
            try:
                with capture_refs():
                    cloudpickle.dumps(part, protocol=5)
            except Exception:
                return _culprit(part, (*path, name), depth + 1, seen)
    return "".join(path).lstrip("."), value


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{i}]", item) for i, item in enumerate(value)]
    parts: list[tuple[str, Any]] = []
    closure = getattr(value, "__closure__", None)
    code = getattr(value, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, closure or (), strict=False):
            try:
                parts.append((f".{name}", cell.cell_contents))
            except ValueError:  # an empty cell
                continue
        functions_globals = value.__globals__
        parts += [(f".{name}", functions_globals[name]) for name in code.co_names if name in functions_globals]
        parts += [(f".<default {i}>", item) for i, item in enumerate(value.__defaults__ or ())]
    elif isinstance(value, type):
        return [(f".{name}", item) for name, item in vars(value).items() if not name.startswith("__") or callable(item)]
    parts += [(f".{name}", item) for name, item in getattr(value, "__dict__", {}).items()]
    return parts
