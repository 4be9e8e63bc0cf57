"""One local engine for consecutive tests that only want one to run: a start and a stop cost more than most tests."""

from __future__ import annotations

from contextlib import ExitStack

import psutil
import pytest
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.local import LocalBackend
from rlflow.engine.testing import leak_check

CPUS = 2


class SharedEngine:
    """Starts when it is first wanted; the runner of the tests stops it before a test that has no use for it."""

    def __init__(self) -> None:
        self._backend: LocalBackend | None = None
        self._leak_check = ExitStack()

    def is_wanted_by(self, item: object) -> bool:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            return False
        return "cluster" in item.fixturenames and item.callspec.params.get("backend") == "local"

    @property
    def runs(self) -> bool:
        return self._backend is not None and api.is_initialized() and api.current_backend() is self._backend

    def start(self) -> None:
        if self._backend is not None:
            return
        self._leak_check.enter_context(leak_check())
        engine.init(num_cpus=CPUS)
        backend = api.current_backend()
        assert isinstance(backend, LocalBackend)
        self._backend = backend
        daemon_zygote_workers = 2 + CPUS
        supervisor = psutil.Process(backend.supervisor_pid)
        wait_for(lambda: len(supervisor.children(recursive=True)) == daemon_zygote_workers, "the workers start")

    def stop(self) -> None:
        """Raises AssertionError when anything is left of it."""
        engine.shutdown()
        self._backend = None
        self._leak_check.close()
