"""What ``get_runtime_context()`` returns: where the calling code runs, and what it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .remote import ActorHandle


@dataclass(frozen=True)
class RuntimeContext:
    """Where the calling code runs. Names of methods are Ray's; ids are hexadecimal."""

    backend: str
    role: str
    """``"driver"`` or ``"worker"``."""
    job_id: str
    worker_id: str
    node_id: str
    namespace: str
    task_id: str | None
    actor_id: str | None
    attempt: int
    """0 for the first execution of the current task, 1 after one crash, ..."""
    actor_name: str | None = None
    """Of a named actor."""
    was_current_actor_reconstructed: bool = False
    """Whether this actor was restarted after its process had died."""
    resources: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    environment: str = ""

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor whose method calls this, to pass on.

        Raises:
            EngineStateError: the caller is no actor.
        """
        from .remote import current_actor

        return current_actor()

    def get_job_id(self) -> str:
        return self.job_id

    def get_task_id(self) -> str | None:
        return self.task_id

    def get_actor_id(self) -> str | None:
        return self.actor_id

    def get_actor_name(self) -> str | None:
        return self.actor_name

    def get_worker_id(self) -> str:
        return self.worker_id

    def get_node_id(self) -> str:
        return self.node_id

    def get_assigned_resources(self) -> dict[str, float]:
        """What the scheduler set aside for the current task or actor, by name; memory in bytes. A driver has none."""
        return dict(self.resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Names of the GPUs of the current task or actor: ``{"GPU": ["0", "1"]}``."""
        return {"GPU": list(self.gpus)}

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The environment of this process, the job's included."""
        found: dict[str, Any] = json.loads(self.environment) if self.environment else {}
        return found

    def get_runtime_env_string(self) -> str:
        """:attr:`runtime_env` as JSON."""
        return self.environment or "{}"
