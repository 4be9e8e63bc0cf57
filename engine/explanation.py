"""Why an object is not there, why it is an error, or where it is: in words.

No process knows all of it. The node knows what a task lacks and who has the resources; the worker since when it runs it
and what it waits for itself; the caller of an actor which of its calls come first. So whoever asks goes from one to
the next (``runtime/explaining.py``), each tells its part as a ``Reason`` (see ``messages/``), and what comes out is a
tree: below each line what it waits for. Nothing is kept for this while tasks run; it is put together on request, and
is true of the moments at which the processes were asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import messages as m
from .exceptions import TaskError
from .ids import task_of
from .options import UNITS
from .serialization import load_error
from .store.segment import is_on_disk

READY, FAILED, RUNNING, QUEUED, WAITING, NEVER, UNKNOWN = (
    "ready", "failed", "running", "queued", "waiting", "never", "unknown",
)
LONGEST_LINE = 300
"""Characters of an error or a reason; the whole is in the error itself, or in the events of the control store."""


@dataclass(frozen=True)
class Explanation:
    """What :func:`rlflow.engine.why` found. ``str()`` of it is for people, a line for each step."""

    state: str
    """``"ready"``; ``"failed"``; ``"running"``; ``"queued"`` (it lacks resources, a worker, or its turn);
    ``"waiting"`` (for what ``causes`` are about); ``"never"`` (it asks for what there is not); ``"unknown"``."""
    text: str
    causes: tuple[Explanation, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> Iterator[str]:
        yield indent + self.text
        for cause in self.causes:
            yield from cause._lines(indent + "  ")


def short(task: bytes) -> str:
    """Both ends of an id, as ``rlflow tasks`` shows it: who submitted the task, and its number there."""
    name = task.hex()
    return f"{name[:6]}…{name[-6:]}"


def amounts(demand: Mapping[str, int]) -> str:
    """Resources as the user wrote them."""
    return ", ".join(f"{amount(name, count)} {name}" for name, count in demand.items()) or "no resources"


def amount(name: str, count: int) -> str:
    return size(count // UNITS) if name == "memory" else f"{count / UNITS:g}"


def size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def seconds(count: float) -> str:
    return f"{count:.1f} s" if count < 120 else f"{count / 60:.1f} min"


def first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def error_line(error: bytes) -> str:
    """What an error is about, in a line. Unpickles it."""
    try:
        loaded = load_error(error)
    except Exception as failure:  # its class is not to be had here
        return f"(the error cannot be loaded: {first_line(str(failure))})"
    if isinstance(loaded, TaskError):
        where = f" on {loaded.worker}" if loaded.worker else ""
        if loaded.cause is not None:
            return f"{loaded.function} raised {_line(loaded.cause)}{where}"
        lines = [line for line in loaded.remote_traceback.splitlines() if line.strip()]
        return f"{loaded.function} raised {first_line(lines[-1] if lines else 'an error')}{where}"
    return _line(loaded)


def _line(error: BaseException) -> str:
    text = first_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(oid: bytes, value: m.Inline | m.Shm) -> str:
    """Where an object that exists is."""
    name = short(task_of(oid))
    if isinstance(value, m.Inline):
        return f"{name} is there: {size(len(value.data) + sum(map(len, value.buffers)))}, in memory"
    place = "on disk" if is_on_disk(value.segment) else "in shared memory"
    return f"{name} is there: {size(sum(value.sizes))}, {place} (segment {value.segment})"
