"""A recoverable actor, from inside its process: it reports its calls to the node, saves its instance, restores it.

A call is not answered from here: it goes to the node with its outcome and its number, and the node answers when it
has both in the control store. The actor does not wait for that; what it has run and the node has not stored when it
dies was seen by nobody, and is sent again by the callers.

A restart reads checkpoint and log from the control store itself, before it says that it has started. It runs the
calls with their ids and as a later attempt, so that they find what they submitted the first time: tasks by the ids of
children, calls of other actors because those ask the node (``repeats.py``). What they return is thrown away: it is
with the callers, or where these will look for it.

A checkpoint is a file, renamed into place when it is on disk: whoever dies while it is written leaves the older one.
The node hears of it behind the calls it covers. Not by way of the node: a model of a gigabyte would stop everybody.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec

from .. import messages as m
from ..control_store import checkpoint_file, log_key
from ..exceptions import SerializationError
from ..ids import child_scope
from ..refs import ObjectRef, capture_refs
from ..runtime.process import ProcessBackend
from ..runtime.scope import TaskScope
from ..serialization import explain_pickling_failure
from ..store_reader import StoreReader


class Recovery:
    """See the module's essay."""

    def __init__(self, backend: ProcessBackend, how: m.Recover) -> None:
        self._backend = backend
        self._folder = Path(backend.session.store)
        self._actor = b""
        self._attempt = 0
        self._every = how.checkpoint_every
        self.logs = how.replay
        """Whether its calls are logged, and answered by the node."""
        self._number = 0
        """Of the last call that the instance has run."""
        self._saved = 0
        self._unsent: list[msgspec.Raw] = []
        self._large: list[m.Shm] = []
        """Results of those calls."""
        self._kept: list[ObjectRef] = []
        """Refs inside results that the node does not know yet."""
        self._lock = threading.RLock()  # the background thread sends as well; a finalizer's print may flush inside

    # ------------------------------------------------------------ calls

    def ran(
        self, spec: msgspec.Raw, outcome: msgspec.Raw, kept: list[ObjectRef] | None, values: list[m.Value]
    ) -> None:
        """One more call was run that is logged; it goes to the node with the next flush. ``kept``: until then."""
        with self._lock:
            self._number += 1
            self._unsent += (spec, outcome)
            self._large += [value for value in values if isinstance(value, m.Shm)]
            if kept is not None:
                self._kept += kept

    def post_calls(self) -> None:
        with self._lock:
            if self._unsent:
                first = self._number + 1 - len(self._unsent) // 2
                calls, self._unsent = self._unsent, []
                self._backend.post_node(m.Ran(first, calls))
                self._backend.storage.arena.announced(self._large)
                self._large.clear()
                self._kept.clear()

    # ------------------------------------------------------------ checkpoints

    def save_if_due(self, instance: Any) -> None:
        """After every so many calls; a failure is reported, and tried again after as many."""
        if not self.logs:
            self._number += 1
        if not self._every or self._number - self._saved < self._every:
            return
        self._saved = self._number
        backend = self._backend
        backend.endpoint.flush()  # nobody waits for the disk, and what the checkpoint covers is there before it
        outer = backend.program_scope
        name = child_scope(log_key(self._actor, self._number))
        backend.program_scope = TaskScope(self._actor, self._actor, self._attempt, name)
        try:
            refs = self._save(instance)
        except Exception as error:  # the user's, a value that cannot be pickled, a full disk: the actor serves on
            backend.post_node(m.Checkpointed(self._number, [], f"{type(error).__name__}: {error}"))
        else:
            backend.post_node(m.Checkpointed(self._number, list({ref.binary(): None for ref in refs})))
        finally:
            backend.program_scope = outer

    def _save(self, instance: Any) -> list[ObjectRef]:
        """Writes the file; returns the refs inside, which must live until the node knows of them."""
        save: Callable[[], Any] | None = getattr(instance, "save_checkpoint", None)
        state = instance if save is None else save()
        file = checkpoint_file(self._folder, self._actor, self._number)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.tmp")
        try:
            with open(unfinished, "wb") as out:
                try:
                    with capture_refs() as refs:
                        cloudpickle.Pickler(out, protocol=5).dump(state)
                except (OSError, SerializationError):
                    raise
                except Exception as error:
                    raise explain_pickling_failure(state, error, f"the state of {type(instance).__name__}") from error
                out.flush()
                os.fsync(out.fileno())
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(file.parent)
        for ref in refs:
            self._backend.objects.escape(ref)
        return refs

    # ------------------------------------------------------------ restarts

    def restore(
        self, actor: bytes, attempt: int, store: StoreReader, cls: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """The instance as the last checkpoint has it, or a new one when there is none."""
        self._actor = actor
        self._attempt = attempt
        number = store.checkpoint(actor) if attempt else None
        if number is None:
            return cls(*args, **kwargs)
        with open(checkpoint_file(self._folder, actor, number), "rb") as file:
            state = pickle.load(file)
        self._number = self._saved = number
        if not hasattr(cls, "load_checkpoint"):
            return state
        instance = cls(*args, **kwargs)
        instance.load_checkpoint(state)
        return instance

    def to_replay(self, store: StoreReader) -> Iterator[m.Spec]:
        """The calls after the checkpoint, each to be run when the one before has been."""
        if not self.logs or not self._attempt:
            return
        for number, spec in store.calls(self._actor, self._number):
            spec.change(num_returns=0)
            yield spec
            self._number = number


def _sync(folder: Path) -> None:
    """Makes a renamed file durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
