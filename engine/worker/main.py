"""The life of a worker process, from the fork to its exit."""

from __future__ import annotations

import faulthandler
import io
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import numpy as np

from .. import api, runtime_env
from .. import messages as m
from ..exceptions import RuntimeEnvSetupError
from ..session import Session
from .backend import WorkerBackend
from .executor import Executor

OOM_SCORE = "500"
"""Should the kernel run out of memory after all, it takes a worker before driver and daemon."""


def run(session: Session, worker: str, node_inbox: str, environment: str) -> int:
    """Runs tasks until the node says that it is enough; returns the exit code. ``node_inbox``: the node's right now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the driver
    _leave_sigterm_to_the_driver()
    faulthandler.enable()
    with suppress(OSError):  # not everywhere allowed
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # until a task with GPUs comes
    try:
        runtime_env.apply(environment or session.runtime_env, session.sys_path)
        is_set_up = True
    except RuntimeEnvSetupError:  # the executor tries it again, where a task can report it
        is_set_up = False
    random.seed()
    np.random.seed()
    backend = WorkerBackend(session, worker, node_inbox)
    backend.environment = environment
    backend.is_set_up = is_set_up
    sys.stdout = _PrintStream(backend, "stdout")
    sys.stderr = _PrintStream(backend, "stderr")
    api.install_backend(backend)
    executor = Executor(backend, f"worker {worker} (pid {os.getpid()})")
    backend.greet()  # from here on tasks come
    executor.run()
    backend.shutdown()
    return 0


def _leave_sigterm_to_the_driver() -> None:
    """As the supervisor says. Processes that a task forks or starts end by it as they would anywhere."""
    worker = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() != worker:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handler)


class _PrintStream(io.TextIOBase):
    """Sends whole lines to the driver. What C code prints goes to the worker's log file instead."""

    def __init__(self, backend: WorkerBackend, stream: str) -> None:
        self._backend = backend
        self._stream = stream
        self._partial = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        lines, newline, self._partial = (self._partial + text).rpartition("\n")
        if newline:
            self._send(lines)
        return len(text)

    def flush(self) -> None:
        """Shows a line that has not ended: who flushes wants it to be seen."""
        partial, self._partial = self._partial, ""
        if partial:
            self._send(partial)

    def _send(self, lines: str) -> None:
        source = f"{self._backend.process}, pid {os.getpid()}"
        self._backend.post_node(m.Print(self._stream, source, lines))
