"""The node's side of the worker processes: asks the zygote for them and learns how they end."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass

from ..session import Session

LOG_TAIL_BYTES = 3000
CONNECT_SECONDS = 60.0
UNKNOWN_END = 255
"""Exit status of a worker that ended so long ago that the zygote has forgotten it."""


@dataclass
class Process:
    """A worker process: ``pid`` 0 until the zygote has forked it."""

    id: str
    pid: int = 0
    ready: bool = False
    environment: str = ""
    leaving: bool = False
    """It was told to exit, so its end is no accident."""
    since: float = 0.0
    """When it was asked for; once it has a pid, when it was forked or this node heard of it. On the monotonic clock."""
    late: bool = False
    """It was given up because it did not start."""


class WorkerPool:
    """Workers by id. Ids are never used twice in a session."""

    def __init__(self, session: Session, inbox: str) -> None:
        """``inbox``: the node's."""
        self._session = session
        self._inbox = inbox
        self.processes: dict[str, Process] = {}
        self.starting: set[str] = set()
        """Those that were asked for and have not said anything yet."""
        self.ready = False
        """The zygote has imported everything: workers can be forked."""
        self.count = 0
        """Workers that were ever asked for, which is the number in the last one's name."""
        self._dead: list[str] = []
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:  # the zygote is starting beside us
            try:
                self._socket.connect(f"{session.folder}/zygote.sock")
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
        self._socket.sendall(b"attach\n")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self, count: int, environment: str = "") -> None:
        for _ in range(count):
            self.count += 1
            worker = f"w{self.count}"
            self.processes[worker] = Process(worker, environment=environment, since=time.monotonic())
            self.starting.add(worker)
            self._socket.sendall(f"fork {worker} {self._inbox} {environment}\n".encode())

    def take_over(self, known: dict[str, int]) -> list[tuple[Process, int]]:
        """The workers of a node that died, whose place this one takes.

        Those that live are in ``processes`` from here on. Returned are those whose end that node has not recorded,
        with their exit status. ``known``: workers whose start it has, with their pids.
        """
        ends: dict[str, int] = {}
        while not self.ready:
            select.select([self._socket], [], [])
            for line in self._lines():
                word, *rest = line.split()
                if word == "exited":
                    ends[rest[0]] = int(rest[1])
                else:
                    self._on_line(line)
        return [
            (Process(worker, pid, ready=True), ends.get(worker, UNKNOWN_END))
            for worker, pid in known.items() if worker not in self.processes
        ]

    def poll(self) -> list[tuple[Process, int]]:
        """Workers that ended since the last call, with their exit status (negative: the signal)."""
        ended: list[tuple[Process, int]] = []
        for line in self._lines():
            word, *rest = line.split()
            if word == "exited":
                process = self.processes.pop(rest[0], None)
                self.starting.discard(rest[0])
                if process is not None:
                    ended.append((process, int(rest[1])))
            else:
                self._on_line(line)
        return ended

    def _on_line(self, line: str) -> None:
        word, *rest = line.split(" ", 3)
        if word == "ready":
            self.ready = True
        elif word == "attached":
            self.count = max(self.count, int(rest[0]))
        elif word == "started":
            worker, pid, environment = [*rest, ""][:3]
            process = self.processes.setdefault(worker, Process(worker, environment=environment))
            process.pid = int(pid)
            process.since = time.monotonic()
            self.starting.add(worker)

    def _lines(self) -> list[str]:
        """What the zygote has said since the last call."""
        said: list[str] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return said
            except ConnectionResetError:
                data = b""
            if not data:
                raise ConnectionError("the zygote is gone")
            *lines, self._received = (self._received + data).split(b"\n")
            said += [line.decode() for line in lines]

    def started(self, process: Process) -> None:
        """It has said its first word, to this node or to an earlier one."""
        process.ready = True
        self.starting.discard(process.id)

    def late(self, since: float) -> list[Process]:
        """Those that are starting still, and were forked before that, or asked for and not even forked."""
        if not self.ready:  # the zygote imports what its user wants, which may take a while
            return []
        return [process for worker in self.starting if (process := self.processes[worker]).since <= since]

    def zygote_pid(self) -> int:
        pid, _, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    def buried(self) -> None:
        """What followed from the ends of workers is in the control store: notes and sockets can go."""
        while self._dead:
            worker = self._dead.pop()
            self._session.started_task(worker).unlink(missing_ok=True)
            self._session.remove_sockets(worker)

    def leaves(self, worker: str) -> None:
        """It said that it is about to exit; it may have done so by now."""
        process = self.processes.get(worker)
        if process is not None:
            process.leaving = True

    def kill(self, worker: str) -> None:
        process = self.processes.get(worker)
        if process is not None and process.pid:
            os.kill(process.pid, signal.SIGKILL)  # not reaped before the zygote said so: the pid is still its own

    def last_started(self, worker: str) -> bytes:
        """The task that a dead worker ran at last, empty if it ran none."""
        self._dead.append(worker)
        return self.note(worker)

    def note(self, worker: str) -> bytes:
        """The task that a worker began last, or is in; empty if there was none yet."""
        path = self._session.started_task(worker)
        try:
            task = path.read_bytes()
        except FileNotFoundError:  # it died before it could run any
            return b""
        return task if any(task) else b""

    def describe_end(self, process: Process, status: int) -> str:
        """How a worker ended, for people."""
        if status < 0:
            try:
                how = f"was killed by {signal.Signals(-status).name}"
            except ValueError:
                how = f"was killed by signal {-status}"
        else:
            how = f"exited with code {status}"
        if process.late:
            how = f"did not start and {how}"
        text = f"worker {process.id} (pid {process.pid}) {how}"
        tail = self._log_tail(process.id)
        return f"{text}; the end of its output:\n{tail}" if tail else text

    def _log_tail(self, worker: str) -> str:
        try:
            with open(self._session.log(worker), "rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""
