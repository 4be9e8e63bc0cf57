"""Tasks, actors and objects on worker processes, with durable lineage. Knows nothing of reinforcement learning.

The names and their meanings are Ray's, so that a program ports by its import:

    from rlflow import engine

    engine.init()

    @engine.remote
    def square(x):
        return x * x

    engine.get([square.remote(i) for i in range(4)])    # [0, 1, 4, 9]

``docs/architecture.md`` has the processes, the protocol and who owns which state.
"""

from . import actor, exceptions, util
from .api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_gpu_ids,
    get_runtime_context,
    init,
    is_initialized,
    nodes,
    put,
    shutdown,
    timeline,
    wait,
    why,
)
from .options import NearObject
from .refs import ObjectRef
from .remote import ActorClass, ActorHandle, RemoteFunction, exit_actor, get_actor, kill, method, remote

__all__ = [
    "ActorClass",
    "ActorHandle",
    "NearObject",
    "ObjectRef",
    "RemoteFunction",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "util",
    "wait",
    "why",
]
