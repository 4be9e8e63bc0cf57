"""Help for tests of programs that use the engine: leaks, and faults at a chosen point.

``leak_check`` says what code leaves behind, ``table_sizes`` how many entries the tables of a process have. ``inject``
has processes of the engine die, and messages be lost, late or sent twice, at the n-th task or message.
``engine_processes`` names those that run now, ``full_disk`` takes away the control store's room, and ``lose`` the
memory of objects.
"""

from .faults import Fault, Injected, delay, drop, duplicate, inject, kill_at_message, kill_at_task
from .leaks import leak_check
from .loss import lose
from .processes import EngineProcesses, engine_processes, full_disk
from .tables import node_table_sizes, table_sizes

__all__ = [
    "EngineProcesses", "Fault", "Injected", "delay", "drop", "duplicate", "engine_processes", "full_disk", "inject",
    "kill_at_message", "kill_at_task", "leak_check", "lose", "node_table_sizes", "table_sizes",
]
