"""The processes of the running engine, to be looked at and to be killed.

    with leak_check():
        engine.init()
        os.kill(engine_processes().daemon, signal.SIGKILL)
        ...
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .. import api

if TYPE_CHECKING:
    from ..local import LocalBackend


@dataclass(frozen=True)
class EngineProcesses:
    """Pids. A process that is just being started or started anew may be missing: 0, or not in the list."""

    supervisor: int
    daemon: int
    zygote: int
    workers: tuple[int, ...]
    """With those that are actors, in the order in which they were started."""


def engine_processes() -> EngineProcesses:
    """Of the local engine that runs; raises RuntimeError when none does."""
    supervisor = psutil.Process(_backend().supervisor_pid)
    store = str(Path(_backend().session.store) / "data.mdb")
    daemon = zygote = 0
    workers: list[psutil.Process] = []
    # What lost its parent (a process that a task had started, say) is a child of the supervisor's as well.
    for child in _children(supervisor):
        with suppress(psutil.NoSuchProcess):
            if child.cmdline() != supervisor.cmdline():
                continue
            if store in _open_files(child.pid):
                daemon = child.pid
            elif not zygote:
                zygote = child.pid
                workers = _children(child)
    ordered = sorted(workers, key=lambda worker: worker.pid)
    return EngineProcesses(supervisor.pid, daemon, zygote, tuple(worker.pid for worker in ordered))


@contextmanager
def full_disk() -> Iterator[None]:
    """Inside, the disk with the control store has no room for one more byte; afterwards it has again.

    It is the daemon that may not let its files grow; other processes write as before.
    """
    daemon = engine_processes().daemon
    _, hard = resource.prlimit(daemon, resource.RLIMIT_FSIZE)
    size = os.stat(Path(_backend().session.store) / "data.mdb").st_size
    resource.prlimit(daemon, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it was killed meanwhile
            resource.prlimit(daemon, resource.RLIMIT_FSIZE, (hard, hard))


def _backend() -> LocalBackend:
    from ..local import LocalBackend

    backend = api.current_backend() if api.is_initialized() else None
    if not isinstance(backend, LocalBackend):
        raise RuntimeError("no local engine runs in this process: call engine.init() first (backend 'local')")
    return backend


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def _open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    with suppress(FileNotFoundError):  # it has ended
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"{folder}/{name}"))
    return found
