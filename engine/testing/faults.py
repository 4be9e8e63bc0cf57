"""Faults at a chosen point: a process killed at the n-th task or message, a frame lost, late or sent twice.

    with inject(kill_at_task("rollout", nth=3)) as faults:
        engine.init()
        ...
    assert faults.happened() == [1]

The problem: faults worth testing happen in other processes, between two steps of theirs that no test can see. A kill
from outside hits them by luck only. So the fault travels: :func:`inject` writes the plan into a folder that its name
in the environment tells all processes of an engine started in the block, and each arms itself as it opens its
mailbox. What is counted is counted for all of them together, in one file for each fault (an append is atomic).

An engine started elsewhere pays one look into the environment per process, and nothing per task or message.

Invariant: below the place where a fault strikes nothing knows of it. Frames are hit after they were numbered and kept
for a resend, so a lost one is a gap that the receiver sees, as if it had gone with the memory of a dead process.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import zmq

from .. import messages as m
from ..session import FAULTS

if TYPE_CHECKING:
    from ..lane import Address, Lane
    from ..mailbox import Mailbox
    from ..session import Session

PLAN = "plan.json"
LINGER_MS = 2000
Action = Literal["kill", "drop", "duplicate", "delay"]


class Fault(msgspec.Struct, frozen=True):
    """Made by the functions below."""

    action: Action
    nth: int
    times: int
    """How many matching tasks or messages it hits, from the n-th on."""
    task: str = ""
    """Name of the function or method (a pattern, as of file names), for faults at tasks."""
    moment: Literal["begin", "end"] = "begin"
    message: str = ""
    """Tag of the message, for faults at messages."""
    sender: str = "*"
    receiver: str = "*"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.nth < 1 or self.times < 1:
            raise ValueError(f"nth and times count from 1, got nth={self.nth}, times={self.times}")


def kill_at_task(name: str = "*", *, nth: int = 1, times: int = 1, moment: Literal["begin", "end"] = "begin") -> Fault:
    """SIGKILL for the worker or actor that comes to the n-th run of tasks and calls called ``name``.

    Args:
        name: of the function, or ``Class.method`` (``Class.__init__`` is one); ``*`` stands for anything.
        nth: which of the runs, counted from 1 over all processes; runs after a retry or in a replay count as well.
        times: how many runs are hit, from that one on.
        moment: ``"begin"`` is before any code of the task, ``"end"`` when it has run and nobody has heard of it.
    """
    return Fault("kill", nth, times, task=name, moment=moment)


def kill_at_message(
    kind: type[m.Wire], *, nth: int = 1, times: int = 1, sender: str = "*", receiver: str = "*"
) -> Fault:
    """SIGKILL for the process that is about to send the n-th frame with a message of this kind.

    ``kill_at_message(messages.Execute, sender="node", nth=5)`` kills the daemon when it has decided and recorded what
    is to run and has told nobody. Names of processes are ``driver``, ``node``, ``w1``, ``w2``, ..., or patterns.
    """
    return Fault("kill", nth, times, message=_tag(kind), sender=sender, receiver=receiver)


def drop(kind: type[m.Wire], *, nth: int = 1, times: int = 1, sender: str = "*", receiver: str = "*") -> Fault:
    """Loses the n-th frame with such a message: as it happens when the receiver dies before it has read it.

    Between processes that live the mail loses nothing, so one that goes on waits for the frame for ever: drop what is
    for a process that you kill, or from one.
    """
    return Fault("drop", nth, times, message=_tag(kind), sender=sender, receiver=receiver)


def duplicate(kind: type[m.Wire], *, nth: int = 1, times: int = 1, sender: str = "*", receiver: str = "*") -> Fault:
    """Sends the n-th frame with such a message twice."""
    return Fault("duplicate", nth, times, message=_tag(kind), sender=sender, receiver=receiver)


def delay(
    kind: type[m.Wire], seconds: float, *, nth: int = 1, times: int = 1, sender: str = "*", receiver: str = "*"
) -> Fault:
    """Sends the n-th frame with such a message ``seconds`` late; others overtake it."""
    return Fault("delay", nth, times, message=_tag(kind), sender=sender, receiver=receiver, seconds=seconds)


def _tag(kind: type[m.Wire]) -> str:
    tag = kind.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{kind.__name__} is not a message of its own but a part of one")
    return tag


@dataclass(frozen=True)
class Injected:
    """What :func:`inject` gives."""

    folder: Path
    plan: tuple[Fault, ...]

    def happened(self) -> list[int]:
        """How often each fault has struck, in the order in which they were given."""
        return [
            max(0, min(seen - fault.nth + 1, fault.times))
            for fault, seen in zip(self.plan, self.seen(), strict=True)
        ]

    def seen(self) -> list[int]:
        """How many tasks or frames each fault has looked at."""
        return [_size(_counter(self.folder, number)) for number in range(len(self.plan))]


REMOVALS = 20


def _remove(folder: str) -> None:
    """Processes of an engine that is still there may count a fault in it meanwhile."""
    for _ in range(REMOVALS):
        with suppress(OSError):
            shutil.rmtree(folder)
            return
    shutil.rmtree(folder)


@contextmanager
def inject(*faults: Fault) -> Iterator[Injected]:
    """Engines started inside of the block have these faults, until they end. Local ones: inline there is no process."""
    folder = tempfile.mkdtemp(prefix="rlflow-faults-")
    Path(folder, PLAN).write_bytes(msgspec.json.encode(faults))
    outer = os.environ.get(FAULTS)
    os.environ[FAULTS] = folder
    try:
        yield Injected(Path(folder), faults)
    finally:
        if outer is None:
            del os.environ[FAULTS]
        else:
            os.environ[FAULTS] = outer
        _remove(folder)


# ---------------------------------------------------------------- in the processes


def arm(mailbox: Mailbox[Any], session: Session) -> None:
    """Called by a process of an engine with faults, as it opens its mailbox."""
    folder = Path(os.environ[FAULTS])
    try:
        plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=list[Fault])
    except FileNotFoundError:  # the block has ended
        return
    armed = [_Armed(fault, _counter(folder, number)) for number, fault in enumerate(plan)]
    at_messages = [each for each in armed if each.fault.message and fnmatch.fnmatch(mailbox.name, each.fault.sender)]
    if at_messages:
        _Wire(at_messages, mailbox, session)
    at_tasks = [each for each in armed if each.fault.task]
    if at_tasks and mailbox.name not in (session.driver, m.NODE):
        _arm_worker(at_tasks)


class _Armed:
    """A fault in a process, with the count it shares with all others."""

    def __init__(self, fault: Fault, counter: Path) -> None:
        self.fault = fault
        self._counter = counter

    def strikes(self) -> bool:
        """Counts one more; whether it is to be hit."""
        try:
            file = os.open(self._counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the block has ended
            return False
        try:
            os.write(file, b"x")
            count = os.lseek(file, 0, os.SEEK_CUR)  # behind our own byte, whoever writes meanwhile
        finally:
            os.close(file)
        return self.fault.nth <= count < self.fault.nth + self.fault.times


def _arm_worker(faults: list[_Armed]) -> None:
    from ..worker.attempt import Attempt

    def struck(attempt: Attempt, moment: str) -> None:
        spec = attempt.spec
        name = f"{spec.recipe.name}.{spec.recipe.method}" if spec.recipe.kind == m.CALL else spec.recipe.name
        for each in faults:
            if each.fault.moment == moment and fnmatch.fnmatch(name, each.fault.task) and each.strikes():
                os.kill(os.getpid(), signal.SIGKILL)

    class Struck(Attempt):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            struck(self, "begin")

        def outcome(self, values: list[m.Value]) -> m.Outcome:
            struck(self, "end")
            return super().outcome(values)

    from ..worker import executor

    executor.Attempt = Struck  # type: ignore[assignment, attr-defined]


class _Wire:
    """Stands between a mailbox and its sockets, where frames are bytes that have their number."""

    def __init__(self, faults: list[_Armed], mailbox: Mailbox[Any], session: Session) -> None:
        self._faults = faults
        self._session = session
        self._passed: bytes | None = None
        """A frame that was looked at already: the lane had no room, and so it comes again."""
        mailbox._lane = _Lane(mailbox._lane, self)  # type: ignore[assignment]
        socket_of = mailbox._socket
        mailbox._socket = lambda peer: _Socket(socket_of(peer), peer, self)  # type: ignore

    def carry(self, data: bytes, peer: str, send: Callable[[bytes], object]) -> None:
        action, seconds = self._action(data, peer)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action in ("duplicate", "delay"):
            threading.Thread(target=self._send_late, args=(data, peer, seconds), daemon=True).start()
        if action in (None, "duplicate"):
            self._passed = data
            if send(data) is not False:
                self._passed = None

    def _action(self, data: bytes, peer: str) -> tuple[Action | None, float]:
        if data is self._passed:
            self._passed = None
            return None, 0.0
        _, _, messages = msgspec.msgpack.decode(data)
        tags = {message[0] for message in messages}
        for each in self._faults:
            fault = each.fault
            if fault.message in tags and fnmatch.fnmatch(peer, fault.receiver) and each.strikes():
                return fault.action, fault.seconds
        return None, 0.0

    def _send_late(self, data: bytes, peer: str, seconds: float) -> None:
        time.sleep(seconds)
        with zmq.Context() as context, context.socket(zmq.PUSH) as late:
            late.setsockopt(zmq.LINGER, LINGER_MS)
            late.connect(self._session.address(peer))
            late.send(data)


class _Lane:
    """A lane with faults."""

    def __init__(self, lane: Lane, wire: _Wire) -> None:
        self._lane = lane
        self._wire = wire

    def send(self, address: Address, data: bytes) -> bool:
        sent = True

        def send(data: bytes) -> bool:
            nonlocal sent
            sent = self._lane.send(address, data)
            return sent

        self._wire.carry(data, Path(address.path).stem, send)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lane, name)


class _Socket:
    """A ZeroMQ socket with faults."""

    def __init__(self, inner: zmq.Socket[bytes], peer: str, wire: _Wire) -> None:
        self._inner = inner
        self._peer = peer
        self._wire = wire

    def send(self, data: bytes) -> None:
        self._wire.carry(data, self._peer, self._inner.send)


def _counter(folder: Path, number: int) -> Path:
    return folder / f"fault{number}"


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
