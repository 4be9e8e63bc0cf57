"""The folders of a running engine: sockets and logs in one (0700), shared memory in another.

Both are named after the session and lie under ``rlflow-<uid>``. The supervisor holds a lock on ``<session>/lock``
while it lives, so that a later ``init`` can tell the folders of a killed session (machine reset, SIGKILL of the
supervisor) from a running one and sweep them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SHM = Path("/dev/shm")
LONGEST_SOCKET_NAME = 24
LONGEST_IPC_PATH = 107
MARK = "RLFLOW_SESSION"
"""Environment variable of all processes below a supervisor: its session's folder."""

FAULTS = "RLFLOW_FAULTS"
"""Environment variable with the folder of the faults that a test wants (see ``testing/faults.py``)."""

STARTUP_SECONDS = 60
"""Longer than any session needs from making its folders to its supervisor's lock."""


@dataclass(frozen=True)
class Session:
    """What every process of an engine knows from the start; a JSON file in the session's folder."""

    name: str
    folder: str
    shm: str
    spill: str
    """Folder for large objects that shared memory has no room for."""
    store: str
    driver: str
    driver_pid: int
    namespace: str
    capacity: dict[str, int]
    """Resources in ``options.UNITS``."""
    gpus: list[str]
    """Names of the GPUs, as ``CUDA_VISIBLE_DEVICES`` has them; at their positions in the node's counts."""
    runtime_env: str
    """Environment of all workers that have no other (see ``runtime_env.py``), or empty."""
    object_store_memory: int
    store_limit: int
    """Bytes of records in the control store."""
    worker_memory: int
    """Bytes that all workers together may use; 0: what the machine has."""
    memory_threshold: float
    """The share of the machine's memory past which a worker is killed."""
    log_to_driver: bool
    preload: list[str]
    sys_path: list[str]

    def address(self, process: str) -> str:
        """Where the inbox of a process is."""
        return f"ipc://{self.folder}/{process}.sock"

    def lane(self, process: str) -> str:
        """Where a process takes short frames that are in a hurry (see ``mailbox.py``)."""
        return f"{self.folder}/{process}.lane"

    def remove_sockets(self, process: str) -> None:
        """Of a process that is gone: one that was killed could not do it, and ZeroMQ leaves its own lying about."""
        for path in (f"{self.folder}/{process}.sock", self.lane(process)):
            Path(path).unlink(missing_ok=True)

    def log(self, process: str) -> Path:
        return Path(self.folder) / "logs" / f"{process}.log"

    def started_task(self, worker: str) -> Path:
        """Where a worker notes the id of the task that it runs, for the node to read when it is dead."""
        return Path(self.folder) / f"{worker}.task"

    def write(self) -> None:
        path = Path(self.folder) / "session.json"
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Session:
        return cls(**json.loads((Path(folder) / "session.json").read_text()))


def create_session(
    store: str | os.PathLike[str] | None, spill: str | os.PathLike[str] | None, **settings: Any
) -> Session:
    """Makes the folders of a new session, after sweeping those of dead ones.

    Raises OSError when a folder cannot be made; the message names it.
    """
    base = _base_folder()
    shm_base = SHM / base.name
    name = f"s{os.urandom(4).hex()}"
    session_folder = base / name
    while True:
        try:
            for folder in (base, shm_base):
                folder.mkdir(mode=0o700, exist_ok=True)
                if folder.stat().st_uid != os.getuid():
                    raise PermissionError(f"{folder} belongs to another user: cannot start the engine there")
                _sweep(folder, base)
                (folder / name).mkdir(mode=0o700)
            break
        except FileNotFoundError:  # another session ended just now and took the folder above, being empty, with it
            shutil.rmtree(session_folder, ignore_errors=True)
    (session_folder / "logs").mkdir(mode=0o700)
    where = session_folder / "store" if store is None else Path(store).absolute()
    spilled = session_folder / "spilled" if spill is None else Path(spill).absolute() / f"rlflow-{name}"
    for wanted, what in ((where, "the control store's folder"), (spilled, "the folder for spilled objects")):
        try:
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            shutil.rmtree(session_folder)
            shutil.rmtree(shm_base / name)
            raise OSError(error.errno, f"cannot make {what}: {error.strerror}", str(wanted)) from error
    session = Session(
        name=name, folder=str(session_folder), shm=str(shm_base / name), spill=str(spilled), store=str(where),
        **settings,
    )
    session.write()
    return session


def remove_session(session: Session) -> None:
    shutil.rmtree(session.shm, ignore_errors=True)
    shutil.rmtree(session.spill, ignore_errors=True)
    shutil.rmtree(session.folder, ignore_errors=True)
    for base in (Path(session.shm).parent, Path(session.folder).parent):
        with contextlib.suppress(OSError):  # another session is in there
            base.rmdir()


def kill_survivors(folder: str) -> None:
    """Kills what is left of a session whose supervisor was killed: what tasks started, and nobody will take down."""
    mark = f"{MARK}={folder}".encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ValueError):  # it has ended, or is another user's
            continue


def _base_folder() -> Path:
    name = f"rlflow-{os.getuid()}"
    base = Path(tempfile.gettempdir()) / name
    if len(str(base)) + LONGEST_SOCKET_NAME + len("/s00000000/") > LONGEST_IPC_PATH:
        base = Path("/tmp") / name
    return base


def _sweep(folder: Path, base: Path) -> None:
    """Removes what sessions whose supervisor is gone left in ``folder``."""
    for entry in folder.iterdir():
        lock = base / entry.name / "lock"
        try:
            fd = os.open(lock, os.O_RDWR)
        except FileNotFoundError:  # just being made, or left by a process that died while making it
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > STARTUP_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its supervisor lives
        finally:
            os.close(fd)
        kill_survivors(str(base / entry.name))
        with contextlib.suppress(OSError, ValueError, KeyError):  # it died while it was being made
            shutil.rmtree(json.loads((base / entry.name / "session.json").read_text())["spill"], ignore_errors=True)
        shutil.rmtree(SHM / base.name / entry.name, ignore_errors=True)
        shutil.rmtree(base / entry.name, ignore_errors=True)

