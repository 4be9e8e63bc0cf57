"""A check that code leaves nothing behind: no process, file descriptor, shared memory or session folder.

    with leak_check():
        engine.init()
        ...
        engine.shutdown()

Sessions of the engine live in folders ``rlflow-<uid>`` under /dev/shm and the system's folder for temporary
files. Those of other programs of the same user, which may come and go meanwhile, are told apart by the pid of
the driver in their ``session.json``.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "RLFLOW_LEAK_CHECK"
"""Environment variable by which a process is known that lost its parent, and so its place in our tree."""

POLL_SECONDS = 0.02


@contextmanager
def leak_check(timeout: float = 5.0) -> Iterator[None]:
    """Raises when the block leaves anything behind that was not there before.

    Processes take a moment to end and garbage a collection to go, so what remains is looked at again
    until ``timeout`` seconds have passed. When the block itself raises, nothing is checked.

    Raises:
        AssertionError: names each leftover: pid and command line, descriptor and target, or path.
    """
    outer = os.environ.get(MARK, "")
    mark = uuid.uuid4().hex
    os.environ[MARK] = f"{outer} {mark}".strip()  # an outer check must know our processes, too
    try:
        before = _Snapshot.take()
        yield
    finally:
        if outer:
            os.environ[MARK] = outer
        else:
            del os.environ[MARK]
    deadline = time.monotonic() + timeout
    while leftovers := _leftovers(before, mark):
        if time.monotonic() > deadline:
            listed = "\n".join(f"  {leftover}" for leftover in leftovers)
            raise AssertionError(f"left behind after {timeout} s:\n{listed}")
        gc.collect()
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Snapshot:
    pids: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]

    @classmethod
    def take(cls) -> _Snapshot:
        return cls(frozenset(psutil.pids()), frozenset(_descriptors()), frozenset(_session_files()))


def _leftovers(before: _Snapshot, mark: str) -> list[str]:
    found = []
    for pid in sorted(set(psutil.pids()) - before.pids):
        description = _our_process(pid, mark)
        if description is not None:
            found.append(description)
    for descriptor, target in sorted(set(_descriptors()) - before.descriptors):
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
            status = process.status()
            dead = status == psutil.STATUS_ZOMBIE  # it has a name still, but no command line
            command = process.name() if dead else " ".join(process.cmdline())
            return f"process {pid} ({status}, parent {process.ppid()}): {command[:300]}"
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


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
