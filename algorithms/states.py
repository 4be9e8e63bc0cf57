"""Rollout states as plain nested dicts of arrays and numbers, for checkpoints, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

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
        "snapshot": None if snapshot is None else {key: np.array(value) for key, value in snapshot.items()},
    }


def unpack_rollout_state(packed: dict[str, Any]) -> RolloutState:
    """The state :func:`pack_rollout_state` was given."""
    return RolloutState(**packed)
