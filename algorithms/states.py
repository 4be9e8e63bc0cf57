"""Rollout states as plain nested dicts of arrays and numbers, for checkpoints, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import StateError
from .rollout import RolloutState


def pack_rollout_state(state: RolloutState) -> dict[str, Any]:
    """Everything by value. Without a snapshot the environments themselves are not in it."""
    snapshot = state.snapshot
    return {
        "group": state.group,
        "version": state.version,
        "observations": np.array(state.observations),
        "done": np.array(state.done),
        "returns": np.array(state.returns),
        "lengths": np.array(state.lengths),
        "discounted": np.array(state.discounted),
        "memory": None if state.memory is None else np.array(state.memory),
        "snapshot": None if snapshot is None else {key: np.array(value) for key, value in snapshot.items()},
    }


def unpack_rollout_state(packed: dict[str, Any]) -> RolloutState:
    """The state :func:`pack_rollout_state` was given."""
    return RolloutState(**packed)


def unpack_groups(state: dict[str, Any], algorithm: str, groups: int) -> list[RolloutState]:
    """The groups of a saved ``state``.

    Raises:
        StateError: it is a state of another algorithm, or of another number of groups.
    """
    found, count = state.get("algorithm"), len(state.get("groups", ()))
    if (found, count) != (algorithm, groups):
        raise StateError(
            f"this state is of algorithm {found!r} with {count} env groups; the config says {algorithm!r} with {groups}"
        )
    return [unpack_rollout_state(group) for group in state["groups"]]
