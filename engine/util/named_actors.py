"""The names under which actors can be found."""

from __future__ import annotations

from .. import api


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Names of the actors that :func:`~rlflow.engine.get_actor` finds here, sorted.

    With ``all_namespaces`` those of every namespace, as dicts with ``name`` and ``namespace``.
    """
    backend = api.current_backend()
    named = sorted(backend.named_actors())
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    here = backend.context().namespace
    return [name for namespace, name in named if namespace == here]
