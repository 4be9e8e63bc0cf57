"""The zygote: imports once, forks workers on request.

A fork of a process that has NumPy and the user's ``preload`` imported takes a few milliseconds, an interpreter of
its own a second. What makes forking safe is what the zygote does *not* have: no thread (BLAS is told to use one
before NumPy is imported), no ZeroMQ context, no LMDB environment, no torch. It is the parent of the workers and
therefore knows how each one ended.

Protocol, lines on a Unix socket: ``fork <worker>`` in; ``ready`` once, then ``started <worker> <pid>`` and
``exited <worker> <status>`` out, status as ``os.waitstatus_to_exitcode`` gives it (negative: the signal).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback

from ..session import Session
from ..supervisor import PR_SET_PDEATHSIG

REQUIRED = ("rlflow.engine.worker.main",)


def main(folder: str) -> None:
    session = Session.read(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{folder}/zygote.sock")
    listener.listen(1)
    for module in (*REQUIRED, *session.preload):
        try:
            importlib.import_module(module)
        except Exception:  # a worker that needs it will say so where it matters
            sys.stderr.write(f"preload of {module!r} failed:\n{traceback.format_exc()}")
    gc.collect()
    gc.freeze()  # what is here now is shared with every worker: keep the collector from touching its pages
    _Zygote(session, listener).run()


class _Zygote:
    def __init__(self, session: Session, listener: socket.socket) -> None:
        self._session = session
        self._listener = listener
        self._libc = ctypes.CDLL(None)
        self._workers: dict[int, str] = {}
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        daemon, _ = self._listener.accept()
        daemon.sendall(b"ready\n")
        received = b""
        while True:
            readable, _, _ = select.select([daemon.fileno(), self._woken], [], [])
            if self._woken in readable:
                os.read(self._woken, 4096)
                self._reap(daemon)
            if daemon.fileno() in readable:
                data = daemon.recv(65536)
                if not data:
                    return  # the daemon is gone, and the supervisor takes the rest down
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    _, worker, environment = line.decode().split(" ", 2)
                    self._fork(worker, environment, daemon)

    def _fork(self, worker: str, environment: str, daemon: socket.socket) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._workers[pid] = worker
            daemon.sendall(f"started {worker} {pid}\n".encode())
            return
        code = 1
        try:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            daemon.close()
            self._listener.close()
            os.close(self._woken)
            os.close(self._wake)
            log = os.open(self._session.log(worker), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            from .main import run

            code = run(self._session, worker, environment)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)  # the worker's log, which the report of its death quotes
        finally:
            assert sys.__stdout__ is not None and sys.__stderr__ is not None
            sys.__stdout__.flush()
            sys.__stderr__.flush()
            os._exit(code)

    def _reap(self, daemon: socket.socket) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                daemon.sendall(f"exited {worker} {os.waitstatus_to_exitcode(status)}\n".encode())
