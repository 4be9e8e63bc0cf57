"""Help for tests of programs that use the engine."""

from .leaks import leak_check

__all__ = ["leak_check"]
