"""Starting and stopping the engine of processes on this machine, from the driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import machine, stacks
from . import messages as m
from .control_store import DEFAULT_LIMIT
from .exceptions import StartupError
from .ids import new_scope
from .interrupts import guard_ctrl_c
from .options import UNITS, machine_resources
from .runtime.process import ProcessBackend
from .runtime.scope import TaskScope
from .session import MARK, Session, create_session, kill_survivors, remove_session
from .store.warming import warm_up
from .store_reader import StoreReader
from .timeline import trace_events

START_SECONDS = 60.0
STOP_SECONDS = 15.0
STACK_SECONDS = 0.2
"""In which a process that was asked for its stack has written it."""

STORE_SHARE = 0.3
"""Of the machine's memory, for large objects, if it is not said otherwise."""


def start_local(
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    object_store_memory: int | None,
    object_spilling_directory: str | os.PathLike[str] | None,
    store_limit: int | None,
    memory: int | None,
    namespace: str,
    log_to_driver: bool,
    store: str | os.PathLike[str] | None,
    preload: tuple[str, ...],
    runtime_env: str,
) -> LocalBackend:
    """Starts supervisor, daemon and zygote and connects to them."""
    store_memory = object_store_memory or int(machine.memory() * STORE_SHARE)
    capacity = machine_resources(num_cpus, num_gpus, resources, memory, store_memory)
    session = create_session(
        store,
        object_spilling_directory,
        driver="driver",
        driver_pid=os.getpid(),
        namespace=namespace,
        capacity=capacity,
        gpus=machine.gpus(capacity.get("GPU", 0) // UNITS),
        runtime_env=runtime_env,
        store_limit=DEFAULT_LIMIT if store_limit is None else store_limit,
        object_store_memory=store_memory,
        worker_memory=memory or 0,
        memory_threshold=machine.memory_threshold(),
        log_to_driver=log_to_driver,
        preload=list(preload),
        sys_path=[os.path.abspath(entry) for entry in sys.path],
    )
    with open(session.log("supervisor"), "wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("supervisor.py")), session.folder],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            env={**os.environ, MARK: session.folder},
        )
    backend = LocalBackend(session, supervisor)
    try:
        backend.await_welcome()
    except BaseException:
        backend.shutdown()
        raise
    warm_up(backend.storage.arena, store_memory)
    return backend


class LocalBackend(ProcessBackend):
    """The driver's backend, and the handle on the processes below it."""

    def __init__(self, session: Session, supervisor: subprocess.Popen[bytes]) -> None:
        self._supervisor = supervisor
        self._pidfd = os.pidfd_open(supervisor.pid)
        super().__init__(session, session.driver, TaskScope(None, None, 0, new_scope()), self._pidfd)
        self._unguard_ctrl_c = guard_ctrl_c()

    @property
    def supervisor_pid(self) -> int:
        """All other processes of the engine are below it."""
        return self._supervisor.pid

    def await_welcome(self) -> None:
        self.greet()
        if not self.endpoint.wait_until(lambda: self.welcome or bool(self.failure), START_SECONDS):
            self._have_stacks_logged()
            raise StartupError(f"the engine did not start within {START_SECONDS:g} s.\n{self._logs()}")
        if self.failure:
            raise StartupError(self.failure)

    def timeline(self) -> list[dict[str, Any]]:
        self.available_resources()  # whatever the node was told before is in the store when it answers
        with StoreReader(self.session.store) as reader:
            return trace_events(reader, self.session.name)

    def _engine_ended(self) -> None:
        """Called by the endpoint when the supervisor is gone."""
        self.failure = f"the engine ended unexpectedly.\n{self._logs()}".rstrip()
        self.objects.give_up()

    def _have_stacks_logged(self) -> None:
        """Of the zygote, above all, which may hang in an import."""
        supervisor = self._supervisor.pid
        for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
            stacks.ask_for(int(child))
        time.sleep(STACK_SECONDS)

    def _logs(self) -> str:
        texts = []
        for name in ("supervisor", "daemon", "zygote"):
            try:
                text = self.session.log(name).read_text(errors="replace").strip()
            except FileNotFoundError:
                continue
            if text:
                texts.append(f"--- {name}:\n{text[-4000:]}")
        return "\n".join(texts)

    def shutdown(self) -> None:
        if not self.failure:
            self.endpoint.post(m.NODE, m.Stop())
            self.endpoint.flush()
            try:
                self._supervisor.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                assert self._supervisor.stdin is not None
                self._supervisor.stdin.close()  # the supervisor takes everything down by force
        self.close(linger_ms=0)  # nobody is left to read
        try:
            self._supervisor.wait(STOP_SECONDS)
        finally:
            self._supervisor.kill()
            self._supervisor.wait()
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            os.close(self._pidfd)
            if self._supervisor.returncode < 0:
                kill_survivors(self.session.folder)
            remove_session(self.session)
            self._unguard_ctrl_c()


__all__ = ["LocalBackend", "start_local"]
