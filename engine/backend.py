"""What stands behind the public names: one interface, an engine of processes or an engine in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .context import RuntimeContext
from .explanation import Explanation
from .functions import Exported
from .options import ActorOptions, TaskOptions
from .refs import ObjectRef

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True)
class ActorInfo:
    """What a handle needs to know of its actor; travels inside pickled handles."""

    actor_id: bytes
    class_name: str
    methods: Mapping[str, int]
    """Public method name → default ``num_returns``."""
    max_pending_calls: int = -1
    """Calls that one process may have unanswered; −1: as many as it likes."""


class Backend(Protocol):
    """One running engine, seen from one process of it."""

    name: str

    def submit_task(
        self, function: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef]: ...

    def create_actor(
        self,
        cls: Exported,
        methods: Mapping[str, int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> tuple[ActorInfo, ObjectRef]:
        """The new actor (or, with ``get_if_exists``, the one of that name) and a ref that counts its handle.

        Raises ValueError when the name is taken.
        """

    def submit_call(
        self, actor: ActorInfo, handle: ObjectRef, method: str, args: tuple[Any, ...], kwargs: dict[str, Any],
        num_returns: int,
    ) -> list[ObjectRef]: ...

    def get_actor(self, name: str, namespace: str | None) -> tuple[ActorInfo, ObjectRef]:
        """Raises ValueError when there is none."""

    def named_actors(self) -> list[tuple[str, str]]:
        """(namespace, name) of all that ``get_actor`` would find."""

    def current_actor(self) -> tuple[type, bytes, ObjectRef] | None:
        """Class, id and one more handle of the actor whose method runs here."""

    def kill_actor(self, actor: ActorInfo, no_restart: bool) -> None: ...

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None: ...

    def put(self, value: Any) -> ObjectRef: ...

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]: ...

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]: ...

    def why(self, ref: ObjectRef) -> Explanation: ...

    def adopt(self, object_id: bytes) -> ObjectRef: ...

    def future(self, ref: ObjectRef) -> Future[Any]: ...

    def awaitable(self, ref: ObjectRef) -> asyncio.Future[Any]: ...

    def cluster_resources(self) -> dict[str, float]: ...

    def available_resources(self) -> dict[str, float]: ...

    def nodes(self) -> list[dict[str, Any]]: ...

    def timeline(self) -> list[dict[str, Any]]: ...

    def context(self) -> RuntimeContext: ...

    def shutdown(self) -> None: ...
