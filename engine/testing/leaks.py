"""A check that code leaves nothing behind: no process, file descriptor, shared memory or session folder.

    with leak_check():
        engine.init()
        ...
        engine.shutdown()

Code that uses an engine which runs on is checked just as strictly: nothing may be left in it.

    engine.init()
    with leak_check(running_engine=True):
        ...

Sessions of the engine live in folders ``rlflow-<uid>`` under /dev/shm and the system's folder for temporary
files. Those of other programs of the same user, which may come and go meanwhile, are told apart by the pid of
the driver in their ``session.json``.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .. import api

if TYPE_CHECKING:
    from ..local import LocalBackend

MARK = "RLFLOW_LEAK_CHECK"
"""Environment variable by which a process is known that lost its parent, and so its place in our tree."""

POLL_SECONDS = 0.01
POLLS_PER_COLLECTION = 4
"""Most of what remains for a moment is on its way already; a collection of a large program takes 0.1 s."""



@contextmanager
def leak_check(timeout: float = 5.0, *, running_engine: bool = False) -> Iterator[None]:
    """Raises when the block leaves anything behind that was not there before.

    Processes take a moment to end and garbage a collection to go, so what remains is looked at again
    until ``timeout`` seconds have passed. When the block itself raises, nothing is checked.

    Args:
        timeout: seconds until what remains counts as left behind.
        running_engine: the local engine that runs already goes on and must be as idle in the end as it can be: all
            resources free, no object, task or actor alive, and as many processes as before (not the same ones:
            actors use workers up, and others take their place).

    Raises:
        AssertionError: names each leftover: pid and command line, descriptor and target, or path.
    """
    outer = os.environ.get(MARK, "")
    mark = uuid.uuid4().hex
    os.environ[MARK] = f"{outer} {mark}".strip()  # an outer check must know our processes, too
    try:
        before = _Snapshot.take(_RunningEngine.take() if running_engine else None)
        yield
    finally:
        if outer:
            os.environ[MARK] = outer
        else:
            del os.environ[MARK]
    deadline = time.monotonic() + timeout
    polls = itertools.count(1)
    while leftovers := _leftovers(before, mark):
        if time.monotonic() > deadline:
            listed = "\n".join(f"  {leftover}" for leftover in leftovers)
            raise AssertionError(f"left behind after {timeout} s:\n{listed}")
        if next(polls) % POLLS_PER_COLLECTION == 0:
            gc.collect()
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Snapshot:
    pids: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]
    engine: _RunningEngine | None

    @classmethod
    def take(cls, engine: _RunningEngine | None) -> _Snapshot:
        return cls(frozenset(psutil.pids()), frozenset(_descriptors()), frozenset(_session_files()), engine)


@dataclass(frozen=True)
class _RunningEngine:
    """The engine that the block finds and leaves."""

    backend: LocalBackend
    processes: int
    """Below the supervisor."""
    pids: frozenset[int]
    """Of the supervisor's children: daemon and zygote."""

    @classmethod
    def take(cls) -> _RunningEngine:
        from ..local import LocalBackend

        backend = api.current_backend()
        assert isinstance(backend, LocalBackend), f"running_engine=True is for the local engine, not {backend.name}"
        below = _descendants(backend.supervisor_pid)
        return cls(backend, len(below), _children_of(backend.supervisor_pid, below))

    def leftovers(self, below: list[psutil.Process]) -> list[str]:
        """``below``: the processes below the supervisor by now."""
        if not api.is_initialized() or api.current_backend() is not self.backend:
            return ["the engine that ran before does not run any more"]
        found = [f"{count:g} {what}" for what, count in self.backend.questions.census().items() if count]
        free, all_ = self.backend.available_resources(), self.backend.cluster_resources()
        if free != all_:
            found.append(f"resources in use: {free} of {all_} are free")
        if len(below) != self.processes:
            listed = "".join(f"\n    {_describe(process)}" for process in below)
            found.append(f"{len(below)} processes of the engine, there were {self.processes}:{listed}")
        return found + [f"mapping of removed memory {path}" for path in _removed_mappings(self.backend.session.shm)]

    def own_descriptors(self, new: set[tuple[int, str]], below: list[psutil.Process]) -> set[tuple[int, str]]:
        """Those of ``new`` that may be: a connection to our inbox from each process of the engine; mapped segments."""
        inbox = self.backend.session.address(self.backend.process).removeprefix("ipc://")
        accepted = {f"socket:[{inode}]" for inode in _unix_sockets(inbox)}
        connections = {(number, target) for number, target in _descriptors() if target in accepted}
        listening = 1
        own = new & connections if len(connections) <= len(below) + listening else set()
        folder = self.backend.session.shm
        segments = {(number, target) for number, target in new if target.startswith(folder) and os.path.exists(target)}
        if self.pids - _children_of(self.backend.supervisor_pid, below):  # another daemon: our connection to it is new
            for kind in ("anon_inode:[eventfd]", "socket:"):
                own |= set([each for each in sorted(new - own) if each[1].startswith(kind)][:1])
        return own | segments  # a segment is mapped once to write and once to read, and used again and again


def _leftovers(before: _Snapshot, mark: str) -> list[str]:
    found = []
    engine = before.engine
    below = _descendants(engine.backend.supervisor_pid) if engine else []
    engine_pids = {process.pid for process in below}
    for pid in sorted(set(psutil.pids()) - before.pids - engine_pids):
        description = _our_process(pid, mark)
        if description is not None:
            found.append(description)
    descriptors = set(_descriptors()) - before.descriptors
    if engine:
        found += engine.leftovers(below)
        if descriptors:
            descriptors -= engine.own_descriptors(descriptors, below)
    for descriptor, target in sorted(descriptors):
        found.append(f"file descriptor {descriptor} -> {target}")
    for path in sorted(set(_session_files()) - before.files):
        if not _of_another_program(path):
            found.append(f"file {path}{_contents(path)}")
    return found


def _our_process(pid: int, mark: str) -> str | None:
    """What ``pid`` is, if this program started it, itself or through others."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if not _descends_from_us(process) and mark not in process.environ().get(MARK, ""):
                return None
            return _describe(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _describe(process: psutil.Process) -> str:
    try:
        status = process.status()
        dead = status == psutil.STATUS_ZOMBIE  # it has a name still, but no command line
        command = process.name() if dead else " ".join(process.cmdline())
        return f"process {process.pid} ({status}, parent {process.ppid()}): {command[:300]}"
    except psutil.NoSuchProcess:
        return f"process {process.pid} (just gone)"


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _children_of(pid: int, descendants: list[psutil.Process]) -> frozenset[int]:
    found = set()
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() == pid:
                found.add(process.pid)
    return frozenset(found)


def _descends_from_us(process: psutil.Process) -> bool:
    own = os.getpid()
    return any(parent.pid == own for parent in process.parents())


def _descriptors() -> list[tuple[int, str]]:
    found = []
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(folder):
            if int(name) == folder:
                continue
            try:
                found.append((int(name), os.readlink(name, dir_fd=folder)))
            except FileNotFoundError:  # closed by another thread meanwhile
                continue
    finally:
        os.close(folder)
    return found


def _unix_sockets(path: str) -> list[str]:
    """Inodes of the sockets at ``path``: the listening one and those that came from it."""
    rows = (line.split() for line in Path("/proc/self/net/unix").read_text().splitlines())
    return [row[6] for row in rows if row[7:] == [path]]


def _removed_mappings(folder: str) -> list[str]:
    """Files in ``folder`` that are gone, but their memory is not: we map them still."""
    rows = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    return sorted({row[5] for row in rows if len(row) == 6 and row[5].startswith(folder) and "(deleted)" in row[5]})


def _session_files() -> list[str]:
    """Everything at the top of the engine's folders."""
    name = f"rlflow-{os.getuid()}"
    found = []
    for root in ("/dev/shm", *_temporary_folders()):
        try:
            found += [str(path) for path in Path(root, name).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def _of_another_program(path: str) -> bool:
    """Whether the session belongs to a driver that lives and is none of ours."""
    base, session = Path(path).parent.name, Path(path).name
    for root in _temporary_folders():
        try:
            driver = int(json.loads(Path(root, base, session, "session.json").read_text())["driver_pid"])
            return driver != os.getpid() and not _descends_from_us(psutil.Process(driver))
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
            continue
    return False


def _temporary_folders() -> set[str]:
    return {tempfile.gettempdir(), "/tmp"}  # the second when paths of sockets in the first would be too long


def _contents(path: str) -> str:
    try:
        inside = sorted(entry.name for entry in Path(path).iterdir())
    except OSError:
        return ""
    if not inside:
        return " (empty folder)"
    return f" (holds {', '.join(inside[:10])}{', ...' if len(inside) > 10 else ''})"
