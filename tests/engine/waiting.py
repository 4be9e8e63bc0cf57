"""Waiting for what the engine does in its own time, and looking at the processes it left."""

import os
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from rlflow import engine
from rlflow.engine import api

DEADLINE = 40.0
"""Seconds; far more than anything waited for takes, so that a busy machine fails no test."""


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Returns once ``condition()`` is true; fails the test, saying ``what`` did not happen, when it stays false."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {DEADLINE:g} s: {what}"
        time.sleep(0.01)


def start_engine(num_cpus: int = 2, **options: object) -> None:
    """``init``, and waits until all its processes are there."""
    engine.init(num_cpus=num_cpus, log_to_driver=False, **options)
    supervisor = psutil.Process(api.current_backend().supervisor_pid)
    wait_for(lambda: len(supervisor.children(recursive=True)) == 2 + num_cpus, "daemon, zygote and workers start")


def all_resources_free() -> bool:
    return engine.available_resources() == engine.cluster_resources()


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Living processes whose environment says ``variable=value``, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def daemon_and_zygote(supervisor: int) -> tuple[int, int]:
    """Their pids. The daemon is the one that has the control store open."""
    parent = psutil.Process(supervisor)
    forked = [child.pid for child in parent.children() if child.cmdline() == parent.cmdline()]
    (daemon,) = (pid for pid in forked if any(target.endswith("data.mdb") for target in _open_files(pid)))
    (zygote,) = (pid for pid in forked if pid != daemon)
    return daemon, zygote


def _open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed in this moment
            found.append(os.readlink(f"{folder}/{name}"))
    return found
