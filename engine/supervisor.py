"""The supervisor: parent of a machine's daemon and zygote, and the one who takes everything down.

The promise: Ctrl-C, SIGTERM and SIGKILL of the driver leave no process, no socket file and no shared memory. The
driver cannot keep it (SIGKILL), nor can the daemon (it may be what crashed). So a tiny process that runs no user
code watches the driver by pidfd, is the subreaper of everything below it, and on the driver's end (or on a word on
its stdin) kills all its descendants and removes the session's folders. PDEATHSIG alone is not enough: it fires when
the forking *thread* ends, and orphaned grandchildren never get it.

A daemon that dies is started anew, on the same control store (see ``node/resume.py``). The zygote, which has imported
all it needs, forks it in a few milliseconds; it becomes our child all the same. One that dies again and again is not:
something is wrong that a restart does not mend, and the session ends with the daemon's log.

Runs as a script, with the standard library only, so that it is up in 20 ms; daemon and zygote are forked from it
and import what they need side by side.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

GIVES_UP = 3
"""Exit code of a daemon that shall not be started anew; its log says why."""

MOST_DEATHS = 10
WITHIN_SECONDS = 10.0
"""A daemon that dies so often in so short a time is not started anew."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Set before anything imports NumPy, whose BLAS starts its threads at import: the zygote must have none."""


def main(folder: str) -> int:
    session = json.loads((Path(folder) / "session.json").read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    lock = os.open(Path(folder) / "lock.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(Path(folder) / "lock.new", Path(folder) / "lock")  # whoever finds it finds it locked
    try:
        driver = os.pidfd_open(session["driver_pid"])
    except ProcessLookupError:
        _clean_up(session)
        return 0

    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for handled in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(handled, lambda *_: None)

    own = (lock, driver, woken, wake)
    daemon = _fork(libc, folder, "daemon", "rlflow.engine.node.daemon", session["sys_path"], own)
    zygote = _fork(libc, folder, "zygote", "rlflow.engine.worker.zygote", session["sys_path"], own)
    code = _Watch(folder, daemon, zygote).until_the_end(driver, woken)
    _kill_descendants(libc)
    if code:  # the driver lives and will read the logs before it removes the folder
        shutil.rmtree(session["shm"], ignore_errors=True)
        shutil.rmtree(session["spill"], ignore_errors=True)
    else:
        _clean_up(session)
    return code


def _fork(
    libc: ctypes.CDLL, folder: str, role: str, module: str, sys_path: list[str], to_close: tuple[int, ...]
) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for fd in to_close:  # the lock above all: while anybody has it, it is held
            os.close(fd)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # SIGTERM goes on being ignored here: who ends a job (Slurm, say) sends it to all of its processes, and the
        # driver, which is among them, may want to save something first. Its end is the end of all others.
        log = os.open(Path(folder) / "logs" / f"{role}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.path[:] = sys_path
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        import importlib

        code = importlib.import_module(module).main(folder) or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)


class _Watch:
    """Over daemon and zygote."""

    def __init__(self, folder: str, daemon: int, zygote: int) -> None:
        self._folder = folder
        self._daemon = daemon
        """Its pid; 0 while the zygote has been asked for a new one."""
        self._zygote = zygote
        self._deaths: list[float] = []
        self._ended: dict[int, int] = {}
        self._line = b""
        self._poller = select.poll()
        self._forge: socket.socket | None = None
        """To the zygote, once a daemon had to be started anew."""

    def until_the_end(self, driver: int, woken: int) -> int:
        """Until the driver is gone, says stop, or the engine cannot go on. 0 when that was in order."""
        for fd in (driver, woken, 0):
            self._poller.register(fd, select.POLLIN)
        while True:
            events = dict(self._poller.poll())
            if driver in events or 0 in events:
                return 0
            if woken in events:
                os.read(woken, 4096)
                self._ended.update(_reap())
            if self._forge is not None and self._forge.fileno() in events:
                self._hear()
            code = self._zygote_ended() if self._zygote in self._ended else self._daemon_ended()
            if code is not None:
                return code

    def _zygote_ended(self) -> int:
        # Without it the daemon fails, so its end may be the older one all the same: killed ones are named first.
        found = [(who, self._ended[pid]) for who, pid in self._both() if self._ended.get(pid) is not None]
        for who, code in sorted(found, key=lambda end: end[1] > 0):
            sys.stderr.write(f"the engine's {who} ended with {code}\n")
        return 1

    def _both(self) -> list[tuple[str, int]]:
        return [("zygote", self._zygote), ("daemon", self._daemon)]

    def _daemon_ended(self) -> int | None:
        """What that means for the session: its end, with this code, or (None) that it goes on."""
        code = self._ended.get(self._daemon)
        if self._daemon:
            self._ended.clear()  # the others are orphans of the tasks'
        if code is None:
            return None
        if code == 0:
            return 0
        now = time.monotonic()
        self._deaths.append(now)
        if code == GIVES_UP:
            sys.stderr.write("the engine's daemon gave up\n")
            return 1
        sys.stderr.write(f"the engine's daemon ended with {code}\n")
        recent = sum(now - death < WITHIN_SECONDS for death in self._deaths)
        if recent >= MOST_DEATHS:
            sys.stderr.write(f"it ended {recent} times within {WITHIN_SECONDS:g} s and is not started again\n")
            return 1
        return self._start_anew()

    def _start_anew(self) -> int | None:
        sys.stderr.flush()
        self._daemon = 0
        try:
            if self._forge is None:
                self._forge = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._forge.connect(f"{self._folder}/zygote.sock")
                self._poller.register(self._forge, select.POLLIN)
            self._forge.sendall(f"daemon {len(self._deaths)}\n".encode())
        except OSError as error:  # the zygote is gone as well, or was not up yet
            sys.stderr.write(f"the zygote cannot start it again: {error}\n")
            return 1
        return None

    def _hear(self) -> None:
        assert self._forge is not None
        data = self._forge.recv(4096)
        if not data:  # the zygote's end follows
            self._poller.unregister(self._forge)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._daemon = int(line.split()[1])


def _reap() -> dict[int, int]:
    """Exit codes of the children that have ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _kill_descendants(libc: ctypes.CDLL) -> None:
    """As subreaper, whoever loses its parent becomes our child: kill children until there are none."""
    me = os.getpid()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
        if not children:
            return
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _clean_up(session: dict[str, str]) -> None:
    for key in ("shm", "spill", "folder"):
        shutil.rmtree(session[key], ignore_errors=True)
    for key in ("shm", "folder"):
        try:
            Path(session[key]).parent.rmdir()
        except OSError:  # another session is in there
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
