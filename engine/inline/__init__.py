"""The engine in this process: tasks run where they are submitted, so that a debugger sees them.

``engine.init(backend="inline")`` runs the same programs with the same results and errors as the engine of
processes, one task after another and depth-first. What differs is what one process cannot give: nothing runs
at the same time, a crash takes everything down, and state of *imported modules* is shared with the tasks.
Actors do not keep others waiting for the resources they hold, because nothing could wait.
"""

from .backend import InlineBackend

__all__ = ["InlineBackend"]
