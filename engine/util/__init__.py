"""What programs build on top of tasks and actors again and again; Ray has it as ``ray.util``."""

from .actor_pool import ActorPool
from .named_actors import list_named_actors

__all__ = ["ActorPool", "list_named_actors"]
