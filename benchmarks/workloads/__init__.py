"""The engine workloads: one program text for every engine.

``api`` is the module ``ray`` or ``rlflow.engine``; both have the names that the programs use.
"""

from . import actors, objects, rollouts, tasks
from .process_pools import ON_POOLS
from .registry import WORKLOADS, Workload, in_groups, select

__all__ = ["ON_POOLS", "WORKLOADS", "Workload", "actors", "in_groups", "objects", "rollouts", "select", "tasks"]
