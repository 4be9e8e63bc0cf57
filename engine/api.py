"""The public verbs. Each checks its arguments and hands over to the backend of this process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .backend import Backend
from .context import RuntimeContext
from .exceptions import EngineStateError, UnsupportedError
from .explanation import Explanation
from .refs import ObjectRef, all_different, refuse_fork, set_ref_host
from .runtime_env import normal_form
from .timeline import write

_backend: Backend | None = None
_owner_pid = 0
_forked = False
"""This process is a fork of the one whose backend it is."""
_inherited: list[Backend] = []
"""Engines of processes that this one was forked from; kept, since their ends are not ours to make."""
_stopped_at_exit = False


def init(
    address: str | None = None,
    *,
    backend: str = "local",
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: str | os.PathLike[str] | None = None,
    store_limit: int | None = None,
    memory: int | None = None,
    namespace: str = "default",
    ignore_reinit_error: bool = False,
    log_to_driver: bool = True,
    store: str | os.PathLike[str] | None = None,
    preload: Sequence[str] = ("numpy",),
    runtime_env: Mapping[str, Any] | None = None,
) -> RuntimeContext:
    """Starts the engine on this machine.

    Args:
        address: ``None`` or ``"local"``; joining a running cluster is not supported yet.
        backend: ``"local"`` for worker processes, ``"inline"`` to run everything in this process (pdb works).
        num_cpus: CPUs the scheduler may give out; the machine's by default.
        num_gpus: GPUs likewise, whole ones; those that ``CUDA_VISIBLE_DEVICES`` names, or else the machine's.
        resources: further resources by name, e.g. ``{"camera": 1}``.
        object_store_memory: bytes of shared memory for large objects; 30 % of memory by default.
        object_spilling_directory: folder on disk for large objects that find no room there; in the session's own
            folder, below the system's folder for temporary files, by default.
        store_limit: bytes of records that the control store keeps, 1 GiB by default; the oldest that nothing needs
            any more go first.
        memory: bytes that tasks and actors may use together: the total of the resource, and a limit past which a worker
            is killed. By default the machine's, less ``object_store_memory``; then the limit is 95 % of the machine's
            memory in use, or what ``RLFLOW_MEMORY_USAGE_THRESHOLD`` says.
        namespace: where names of actors live.
        ignore_reinit_error: a second ``init`` then returns the running engine's context.
        log_to_driver: prints of workers reach this process.
        store: folder for the control store, kept after shutdown; a temporary one by default.
        preload: modules that workers find already imported.
        runtime_env: environment of all workers (``env_vars``, ``working_dir``, ``py_modules``), as for tasks.

    Raises:
        EngineStateError: the engine runs already.
        StartupError: a process did not come up; with its stderr.
    """
    global _backend, _owner_pid
    if address not in (None, "local"):
        raise UnsupportedError(f"init(address={address!r}): joining a cluster is not supported yet; leave it out")
    if _backend is not None and _owner_pid != os.getpid():  # forked: the parent's engine is none of ours
        _inherited.append(_backend)
        _backend = None
    if _backend is not None:
        if ignore_reinit_error:
            return current_backend().context()
        raise EngineStateError(
            "the engine is initialised already; call shutdown() first, or pass ignore_reinit_error=True"
        )
    environment = normal_form(runtime_env)
    if backend == "inline":
        from .inline import InlineBackend

        started: Backend = InlineBackend(num_cpus, num_gpus, resources, namespace, environment, memory)
    elif backend == "local":
        from .local import start_local

        started = start_local(
            num_cpus=num_cpus, num_gpus=num_gpus, resources=resources, object_store_memory=object_store_memory,
            object_spilling_directory=object_spilling_directory, store_limit=store_limit,
            memory=memory,
            namespace=namespace, log_to_driver=log_to_driver, store=store, preload=tuple(preload),
            runtime_env=environment,
        )
    elif backend == "ray":
        raise UnsupportedError("backend='ray' is not supported yet; use 'local' or 'inline'")
    else:
        raise ValueError(f"backend must be 'local' or 'inline', got {backend!r}")
    install_backend(started)
    return started.context()


def install_backend(backend: Backend | None) -> None:
    """Makes ``backend`` the one of this process (a worker installs its own)."""
    global _backend, _owner_pid, _forked, _stopped_at_exit
    _backend = backend
    _forked = False
    _owner_pid = os.getpid()
    set_ref_host(backend)
    if backend is not None and not _stopped_at_exit:
        _stopped_at_exit = True
        atexit.register(shutdown)


def shutdown() -> None:
    """Stops every process of the engine and frees its memory. Safe to call twice, or without ``init``."""
    global _backend
    if _backend is None or _owner_pid != os.getpid():
        return
    stopping, _backend = _backend, None
    try:
        stopping.shutdown()
    finally:
        set_ref_host(None)


def is_initialized() -> bool:
    return _backend is not None and _owner_pid == os.getpid()


def current_backend() -> Backend:
    """The backend of this process; starts a local one when there is none, as Ray does."""
    if _backend is None:
        init()
        assert _backend is not None
    if _forked:
        refuse_fork(_owner_pid)
    return _backend


def _after_fork() -> None:
    """In the child. Each call of a remote function looks whether it is in one; to ask for the pid is a system call."""
    global _forked
    _forked = _backend is not None


os.register_at_fork(after_in_child=_after_fork)


def put(value: Any) -> ObjectRef:
    """Stores ``value`` once and returns a ref to it, cheaper than passing a large value to many tasks."""
    if isinstance(value, ObjectRef):
        raise TypeError("put() of an ObjectRef is not allowed: pass the ref itself, or put([ref])")
    return current_backend().put(value)


def get(refs: ObjectRef | Sequence[ObjectRef], *, timeout: float | None = None) -> Any:
    """The value of a ref, or the values of a list of refs; waits for them.

    Arrays that live in shared memory come back read-only and without a copy.

    Raises:
        TaskError: the task raised; also an instance of the class it raised.
        GetTimeoutError: not ready within ``timeout`` seconds.
    """
    _check_timeout(timeout)
    if isinstance(refs, ObjectRef):
        return current_backend().get((refs,), timeout)[0]
    _check_list(refs, "get")
    _check_refs(refs, "get")
    return current_backend().get(refs, timeout)


def wait(
    refs: Sequence[ObjectRef], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef], list[ObjectRef]]:
    """Splits ``refs`` into (ready, pending) once ``num_returns`` are ready or ``timeout`` seconds passed.

    At most ``num_returns`` refs come back as ready; both lists keep the order of ``refs``. On one machine every
    object is local, so ``fetch_local`` changes nothing.
    """
    del fetch_local
    _check_timeout(timeout)
    _check_list(refs, "wait")
    try:
        different = all_different(refs)
    except AttributeError:
        _check_refs(refs, "wait")
        raise
    if not different:
        raise ValueError("wait() got the same ObjectRef twice")
    if not 0 < num_returns <= max(len(refs), 1):
        raise ValueError(f"num_returns must be between 1 and {len(refs)}, got {num_returns}")
    return current_backend().wait(refs, num_returns, timeout)


def cancel(ref: ObjectRef, *, force: bool = False, recursive: bool = True) -> None:
    """Ends the task (or actor call) whose result ``ref`` is; ``get(ref)`` then raises TaskCancelledError.

    What has not begun never does. A task that runs gets a KeyboardInterrupt where its code stands, also in ``get`` and
    in ``time.sleep``; a coroutine of an actor an ``asyncio.CancelledError``; a method that runs in a thread goes on. A
    task that has ended stays as it is. Whoever has the ref can cancel: the request for an actor call goes to the
    process that made it.

    Args:
        ref: a result of the task.
        force: kill the worker that runs it, for code that does not react. Not for actor calls: ValueError, where the
            call was made and while it is unfinished; elsewhere they are cancelled without it.
        recursive: also what the task submitted, and what that submitted, whether those between have ended or not; actor
            calls as well (not those of a task that ``force`` kills).
    """
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() takes an ObjectRef, got {type(ref).__name__}; kill() ends an actor")
    current_backend().cancel(ref, force, recursive)


def why(ref: ObjectRef) -> Explanation:
    """Why the value of ``ref`` is not there yet, why it is an error, or where it is; print it.

    It asks the processes concerned and waits for their answers, a few seconds at most. For people who look at a program
    that does not go on: nothing is decided by it, and the next moment it may be different.
    """
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"why() takes an ObjectRef, got {type(ref).__name__}")
    return current_backend().why(ref)


def cluster_resources() -> dict[str, float]:
    """All resources by name."""
    return current_backend().cluster_resources()


def available_resources() -> dict[str, float]:
    """Resources nobody holds right now."""
    return current_backend().available_resources()


def nodes() -> list[dict[str, Any]]:
    """One dict a node, with Ray's keys ``NodeID``, ``Alive``, ``Resources``."""
    return current_backend().nodes()


def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """What ran where and when, as far as the control store has it, as events of Chrome's tracing format.

    With ``filename`` they are written there as JSON, and nothing is returned. Of a driver only.
    """
    events = current_backend().timeline()
    if filename is None:
        return events
    write(events, filename)
    return None


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs: job, worker, task, actor, attempt, and what it was given."""
    return current_backend().context()


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs of the calling task or actor, as ``CUDA_VISIBLE_DEVICES`` names them; numbers as int. None: ``[]``."""
    names = current_backend().context().gpus
    return [int(name) for name in names] if all(name.isdigit() for name in names) else list(names)


def _check_list(refs: Any, verb: str) -> None:
    if not isinstance(refs, (list, tuple)):
        raise TypeError(f"{verb}() takes an ObjectRef or a list of them, got {type(refs).__name__}")


def _check_refs(refs: Sequence[Any], verb: str) -> None:
    wrong = set(map(type, refs)) - {ObjectRef}
    if wrong:
        raise TypeError(f"{verb}() takes ObjectRefs, got {wrong.pop().__name__} in the list")


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:  # nan, too
        raise ValueError(f"timeout must be None or a number of seconds ≥ 0, got {timeout!r}")
