"""ObjectRef: a future value somewhere in the cluster, counted while anybody holds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from .exceptions import EngineStateError, SerializationError

if TYPE_CHECKING:
    import asyncio


class RefHost(Protocol):
    """The backend of this process, as far as refs need it."""

    def adopt(self, object_id: bytes) -> ObjectRef:
        """A ref to an object that came in inside data; counted as a borrow."""

    def future(self, ref: ObjectRef) -> Future[Any]: ...

    def awaitable(self, ref: ObjectRef) -> asyncio.Future[Any]:
        """A future of the event loop that runs in this thread."""


_host: RefHost | None = None
_host_pid = 0


def set_ref_host(host: RefHost | None) -> None:
    global _host, _host_pid
    _host = host
    _host_pid = os.getpid()


def refuse_fork(owner_pid: int) -> None:
    """Raises EngineStateError in a process that was forked from the one whose engine this is."""
    if owner_pid != os.getpid():
        raise EngineStateError(
            f"this process (pid {os.getpid()}) was forked from pid {owner_pid} after engine.init(): the engine's "
            "handle does not survive a fork. Start the engine in the child, or use tasks instead of os.fork."
        )


def _living_host() -> RefHost:
    if _host is None:
        raise EngineStateError("this ObjectRef outlived its engine: engine.shutdown() has been called")
    refuse_fork(_host_pid)
    return _host


class ObjectRef:
    """A reference to the result of a task or to a value that was ``put``.

    Pass it to other tasks at top level to have it replaced by its value there; nested in data it stays a ref.
    """

    __slots__ = ("__weakref__", "_id", "_loan", "_release")

    _loan: object
    """Only while it is one of many that came out of a container and has not been used (see ``objects.Loan``)."""

    def __init__(self, object_id: bytes, release: Callable[[bytes], None] | None = None) -> None:
        self._id = object_id
        self._release = release

    def binary(self) -> bytes:
        return self._id

    def hex(self) -> str:
        return self._id.hex()

    def future(self) -> Future[Any]:
        """A ``concurrent.futures.Future`` that resolves to the value (or the error)."""
        return _living_host().future(self)

    def __await__(self) -> Generator[Any, None, Any]:
        return _living_host().awaitable(self).__await__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __del__(self) -> None:
        # May run anywhere, under any lock: only append (guarantee 4 in docs/architecture.md).
        if self._release is not None:
            self._release(self._id)

    def __reduce__(self) -> tuple[Callable[[bytes], ObjectRef], tuple[bytes]]:
        captured = getattr(_capture, "refs", None)
        if captured is None:
            raise SerializationError(
                f"{self!r} cannot be pickled outside of the engine: nobody would count that copy. "
                "Pass it to a task or an actor, or put() it."
            )
        captured.append(self)
        return _adopt, (self._id,)


def all_different(refs: Sequence[ObjectRef]) -> bool:
    """Whether no ref is there twice. It is asked of a thousand refs again and again; AttributeError: one is no ref."""
    return len({ref._id for ref in refs}) == len(refs)


class capture_refs:
    """While open, refs that get pickled in this thread are collected (and may be pickled at all)."""

    __slots__ = ("_outer", "refs")

    def __enter__(self) -> list[ObjectRef]:
        self._outer = getattr(_capture, "refs", None)
        self.refs: list[ObjectRef] = []
        _capture.refs = self.refs
        return self.refs

    def __exit__(self, *exc: object) -> None:
        _capture.refs = self._outer


_capture = threading.local()


def _adopt(object_id: bytes) -> ObjectRef:
    if _host is None:
        raise EngineStateError("an ObjectRef was unpickled where no engine is running: call engine.init() first")
    return _host.adopt(object_id)


ADOPT = _adopt
"""What a ref is pickled as a call of."""
