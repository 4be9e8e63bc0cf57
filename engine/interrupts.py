"""Ctrl-C in the driver raises where the program stands, but never inside the engine's own bookkeeping.

The problem: Python runs signal handlers between any two steps of the main thread, and ZeroMQ's binding even right
after a message was sent or received. A KeyboardInterrupt there loses the message or sends it twice. Blocking signals
around each step would cost two system calls a message. Instead the handler looks at the stack: inside the engine's
bookkeeping it raises nothing and has the signal delivered again in a moment. The hot path pays nothing.

Waiting is no bookkeeping, so ``get`` is interrupted at once.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from .mailbox import Mailbox
from .runtime.endpoint import Endpoint
from .store.reader import SegmentReader

AGAIN_AFTER = 0.002
LONGEST = 1.0
"""Seconds after which it raises all the same: it may be the user's code, called back from ours, that does not end."""

_BOOKKEEPING = (Mailbox.send.__code__.co_filename, os.path.dirname(Endpoint.ended.__code__.co_filename) + os.sep)
WAITING = (Mailbox.wait.__code__, Endpoint._serve.__code__, threading.Condition.wait.__code__)
_held_since: dict[int, float] = {}


def hold_back(number: int, frame: FrameType | None) -> bool:
    """For a signal handler, with its arguments: whether it must not raise now. It will be called again in a moment."""
    now = time.monotonic()
    if not _in_finalizer(frame) and (
        not _in_bookkeeping(frame) or now - _held_since.setdefault(number, now) > LONGEST
    ):
        _held_since.pop(number, None)
        return False
    in_a_moment(number)
    return True


def in_a_moment(number: int) -> None:
    """For a signal handler: has the signal delivered again."""
    # Not threading.Thread: its locks may be held by what was interrupted.
    _thread.start_new_thread(_deliver_again, (number,))


def _in_finalizer(frame: FrameType | None) -> bool:
    """Where Python prints exceptions and forgets them: Ctrl-C would be lost. A program that drops many refs is here
    often."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code is SegmentReader._dropped.__code__:
            return True
        frame = frame.f_back
    return False


def _in_bookkeeping(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in WAITING:
            return False
        if frame.f_code.co_filename.startswith(_BOOKKEEPING):
            return True
        frame = frame.f_back
    return False


def _deliver_again(number: int) -> None:
    time.sleep(AGAIN_AFTER)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def guard_ctrl_c() -> Callable[[], None]:
    """Makes Python's own handler of SIGINT hold back where it must; returns what undoes it.

    A handler that the program has installed stays; it may call :func:`hold_back` itself.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return lambda: None

    def handler(number: int, frame: FrameType | None) -> None:
        if not hold_back(number, frame):
            signal.default_int_handler(number, frame)

    def undo() -> None:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handler)
    return undo
