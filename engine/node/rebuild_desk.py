"""What the daemon does about lost objects: their memory is gone, and their tasks are run again.

Who opens a large value and finds nothing says so (``Lost``), and waits for the value as one does that has not come yet.
What has to be run is decided in ``rebuilding.py``; this is its clerk, between it, the directory and the tasks.

Loss is noticed object by object, when somebody asks for one: a segment may hold thousands that nobody wants any more.
All processes are told to look after their own segments then, so that none writes what it makes into a file that nobody
else can open.

A task that is run again for this has no owner: nobody waits for it as a task, and its outcome goes to the node alone.
Of its results those count that were lost. What is there stays where it is, and the second copy is freed; and so the
outcome that is recorded has all results, each from the attempt whose memory lives.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..exceptions import ObjectLostError
from ..ids import HANDLE_INDEX, object_id
from ..serialization import dump_engine_error
from ..store.segment import Folders, block_size
from .payload import Payload, needed_by
from .rebuilding import Run, plan
from .scheduler import Task

if TYPE_CHECKING:
    from .daemon import Daemon

NOBODY = ""


class RebuildDesk:
    """See the module's essay. The world that plans are made from."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self._folders = Folders.of(node.session)
        self._needed: dict[bytes, list[bytes]] = {}
        """By task that is run again: the objects it holds meanwhile."""
        self._puts: dict[bytes, set[bytes]] = {}
        """By task that is run again: the lost objects it is to put again."""
        self._claimants: dict[bytes, list[str]] = {}
        """By task that is run again: processes that submitted it once more and wait for it."""
        self._told: set[str] = set()
        """Lost segments of which all processes have been told."""

    # ------------------------------------------------------------ loss

    def is_gone(self, oid: bytes, value: m.Shm) -> bool:
        """Whether the memory at the current address of an object is no longer there; then the object is lost."""
        try:
            size = os.stat(self._folders.path(value.segment)).st_size
        except FileNotFoundError:
            size = 0
        if value.offset + block_size(value.sizes) <= size:
            return False
        self._node.objects.directory.lose(oid)
        self._node.objects.spilling.gone(oid)
        self._node.store.add_event("lost", oid.hex(), f"its memory {value.segment} is gone")
        if value.segment not in self._told:
            self._told.add(value.segment)
            for process in self._node.roles:
                self._node.post(process, m.LookAfterMemory())
        return True

    def sought(self, oid: bytes) -> m.Value | None:
        """The value of a lost object: a copy, or the error that it cannot be made again.

        None: it is being made, by tasks that are run again from here on if they are not yet.
        """
        copy = self._copy(oid)
        if copy is not None:
            self._node.objects.exists(oid, copy, NOBODY)
            return copy
        stored = self._node.store.value(oid)
        if stored is not None and not isinstance(stored, m.Shm):
            return stored
        found = plan(oid, self)
        if found.refusal:
            return m.Failed(dump_engine_error(ObjectLostError(
                f"ObjectRef({oid.hex()}) is lost: its memory is gone, and it cannot be made again: {found.refusal}"
            )))
        for parent, put in found.puts:
            self._puts.setdefault(parent, set()).add(put)
        tasks = [self._prepare(run) for run in found.runs]
        for task in tasks:
            if not task.payload.spec.deps or self._node.tasks.arguments_there(task):
                self._node.tasks.enqueue(task)
        return None

    # ------------------------------------------------------------ running again

    def _prepare(self, run: Run) -> Task:
        """The task, among those that have not ended, with all that it needs held for it."""
        node, spec = self._node, run.spec
        needed = [oid for oid in dict.fromkeys(needed_by(spec)) if self._hold(oid, spec.task)]
        task = Task(spec.task, spec.recipe.function, spec.recipe.demand, payload=Payload(spec, _for_nobody(spec)))
        if spec.recipe.environment:
            task.environment = spec.recipe.environment
        task.attempt = task.crashes = run.attempt
        node.tasks.tasks[task.id] = task
        node.journal.attempted(task)
        node.store.add_event("rebuilt", task.id.hex(), "what it had made was lost")
        self._needed[task.id] = needed
        return task

    def _hold(self, oid: bytes, task: bytes) -> bool:
        """Whether the object is one that has to be held for the task; one that was freed is sought from here on."""
        directory = self._node.objects.directory
        if directory.is_tracked(oid):
            directory.hold(oid, task, 1)
            return True
        if oid.endswith(HANDLE_INDEX) or isinstance(self._node.store.value(oid), m.Inline | m.Failed):
            return False
        directory.need_again(oid, task)
        return True

    def resumed(self, task: Task) -> None:
        """A worker has a task that an earlier node had it run again."""
        task.payload.raw = _for_nobody(task.payload.spec)
        self._needed[task.id] = list(self._node.objects.directory.held_by(task.id))

    def given_up(self, task: bytes) -> None:
        """An earlier node ran a task once more. If it was for what was lost, and nobody has it: who needs it asks."""
        if task in self._node.tasks.tasks or self._node.store.outcome(task) is None:
            return
        self._node.store.note("attempts", task, None)
        directory = self._node.objects.directory
        self._node.objects.free(directory.task_ended(task, list(directory.held_by(task))))

    def is_run_again(self, task: bytes) -> bool:
        return task in self._needed

    def claimed(self, task: bytes, owner: str) -> None:
        """A parent that runs again submitted a task that is run again: it waits for the outcome."""
        self._claimants.setdefault(task, []).append(owner)

    def ended(self, task: Task, outcome: m.Outcome, worker: str) -> None:
        """A task that was run again has ended."""
        node, directory = self._node, self._node.objects.directory
        needed = self._needed.pop(task.id)
        node.journal.finished(task)
        before = node.store.outcome(task.id)
        made: list[tuple[bytes, m.Value]] = []
        for index, value in enumerate(outcome.values):
            oid = object_id(task.id, index)
            known = directory.known(oid)
            if isinstance(known, m.Shm):
                self.is_gone(oid, known)
            if directory.is_lost(oid):
                made.append((oid, value))
                continue
            if isinstance(value, m.Shm):
                self._node.objects.free_blocks([value])
            known = directory.known(oid)
            if known is None and before is not None:
                known = before.values[index]
            if known is not None:
                outcome.values[index] = known
        retained, outcome.retained = outcome.retained, []
        for borrowed in retained:
            node.objects.free(directory.hold(borrowed, worker.encode(), 1))
        node.store.add_outcome(task.id, msgspec.Raw(m.encode(outcome)))
        for oid, value in made:
            node.objects.exists(oid, value, NOBODY)
        self._put_again(task, outcome)
        for owner in self._claimants.pop(task.id, ()):
            node.post(owner, m.Results([outcome]))
        directory.forget(task.id)
        node.objects.free(directory.task_ended(task.id, needed))
        node.lineage.freed([object_id(task.id, 0)])  # what it made may have been freed meanwhile

    def _put_again(self, task: Task, outcome: m.Outcome) -> None:
        """What the task has not put again it will not."""
        for oid in self._puts.pop(task.id, ()):
            if not self._node.objects.directory.is_lost(oid):
                continue
            how = m.OUTCOME_NAMES.get(outcome.status, "ended")
            error = m.Failed(dump_engine_error(ObjectLostError(
                f"ObjectRef({oid.hex()}) is lost: its memory is gone, and task {task.payload.spec.recipe.name} "
                f"({task.id.hex()}), which had put it, {how} when it was run again and did not put it"
            )))
            self._node.store.add_stored(oid, error)
            self._node.objects.exists(oid, error, NOBODY)

    # ------------------------------------------------------------ the world that plans are made from

    def value(self, oid: bytes) -> m.Value | None:
        known = self._node.objects.directory.known(oid)
        if isinstance(known, m.Shm) and self.is_gone(oid, known):
            known = None
        if known is not None:
            return known
        copy = self._copy(oid)
        if copy is not None:
            return copy
        stored = self._node.store.value(oid)
        return None if isinstance(stored, m.Shm) else stored

    def _copy(self, oid: bytes) -> m.Shm | None:
        copy = self._node.lineage.ancestry.copy(oid)
        if copy is None or not os.path.exists(self._folders.path(copy.segment)):
            return None
        return copy

    def spec(self, task: bytes) -> m.Spec | None:
        raw = self._node.store.spec(task)
        return None if raw is None else m.decode_spec(raw)

    def attempts(self, task: bytes) -> int:
        outcome = self._node.store.outcome(task)
        return 0 if outcome is None else outcome.attempt + 1

    def is_running(self, task: bytes) -> bool:
        return task in self._node.tasks.tasks

    def put_by(self, put: bytes) -> tuple[str, bytes] | None:
        return self._node.lineage.ancestry.put_by(put)

    def history(self) -> str:
        history = self._node.store.history
        return (
            f"the control store keeps {history.limit / 1e6:g} MB (store_limit) and has dropped the {history.flushed} "
            "oldest tasks. A larger store_limit keeps more of them"
        )


def _for_nobody(spec: m.Spec) -> msgspec.Raw:
    """Makes a spec that of a task without an owner, which is not told where its arguments have been long ago."""
    for dep in spec.deps:
        if isinstance(dep.value, m.Shm):
            dep.value = None
    spec.change(owner=NOBODY)
    spec.prefer = ""
    return msgspec.Raw(m.encode(spec))
