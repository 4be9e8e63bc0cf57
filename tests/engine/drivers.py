"""Driver programs in processes of their own, and whether anything of them is left."""

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

from waiting import processes_with, wait_for

PREAMBLE = """
    import os, signal, subprocess, sys, threading, time
    from pathlib import Path
    import numpy as np
    from rlflow import engine
    from rlflow.engine import api

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one

    def say(word):
        print(word, flush=True)

    def start(**options):
        engine.init(**{"num_cpus": 2, **options})
        backend = api.current_backend()
        say(f"{backend._supervisor.pid} {backend.session.folder} {backend.session.shm}")

    @engine.remote
    def identity(value):
        return value

    @engine.remote
    def large():
        return np.ones(1_000_000)

    @engine.remote
    class Keeper:
        def keep(self, value):
            self.value = value
            self.child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            return self.child.pid

    @engine.remote
    def sleeper(path):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        Path(path).touch()
        time.sleep(1000)
"""
MARK = "RLFLOW_TEST_DRIVER"


class Driver:
    """``program`` runs after PREAMBLE; what it starts is known by an environment variable."""

    def __init__(self, program: str, new_session: bool = False) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(program)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, MARK: self._mark}, start_new_session=new_session,
        )
        self.pid = self.process.pid
        self.supervisor = 0
        self.folder = self.shm = Path()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line it says; what it wrote to stderr, in an error, when there is none."""
        line = self.process.stdout.readline()
        assert line, f"the driver ended:\n{self.process.stderr.read()}"
        return line.rstrip("\n")

    def started(self) -> "Driver":
        """Waits for ``start()`` in the program."""
        supervisor, folder, shm = self.line().split(" ")
        self.supervisor, self.folder, self.shm = int(supervisor), Path(folder), Path(shm)
        assert self.folder.is_dir() and self.shm.is_dir()
        return self

    def end(self) -> tuple[int, str, str]:
        """Waits for its end: exit code, what it said and had not been read, stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def leaves_nothing(self) -> None:
        """No process (grandchildren of tasks included), no socket, no shared memory."""
        wait_for(lambda: not processes_with(MARK, self._mark), "all processes of the driver's engine end")
        wait_for(lambda: not self.shm.exists(), "shared memory removed")
        wait_for(lambda: not self.folder.exists(), "sockets and logs removed")
