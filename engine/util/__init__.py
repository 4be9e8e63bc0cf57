"""What programs build on top of tasks and actors again and again; Ray has it as ``ray.util``."""

from .actor_pool import ActorPool

__all__ = ["ActorPool"]
