"""Where Ray's programs look for what an actor may do to itself."""

from .remote import exit_actor

__all__ = ["exit_actor"]
