"""From trajectories to what a policy gradient trains on: advantages, returns, valid rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rollout import Trajectory

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def generalized_advantages(
    rewards: Floats, values: Floats, next_values: Floats, terminated: Bools, truncated: Bools,
    gamma: float, gae_lambda: float,
) -> Floats:
    """GAE(λ), Schulman et al. 2015 (arXiv:1506.02438), equations 11 and 16.

    δ_t = r_t + γ · V(s'_t) · (1 − terminated_t) − V(s_t);  A_t = δ_t + γλ · (1 − done_t) · A_{t+1}.

    A terminal state is worth nothing; a truncated episode goes on in principle, so its last state is worth
    its value. Neither lets advantages flow in from the next episode.

    Args:
        rewards, values: [T, B], V of the state that was acted in.
        next_values: [T, B], V of the state the action led to: at an episode's end its *final* state, not the
            first of the next episode.
        terminated, truncated: [T, B].

    Returns:
        [T, B] float32. Rows right after a done row under NEXT_STEP autoreset are meaningless and influence no
        other row.
    """
    advantages = rewards + gamma * next_values * ~terminated - values
    decay = np.float32(gamma * gae_lambda) * ~(terminated | truncated)
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] += decay[t] * advantages[t + 1]
    return advantages.astype(np.float32, copy=False)


def flatten(trajectories: Sequence[Trajectory], gamma: float, gae_lambda: float) -> dict[str, NDArray[Any]]:
    """The valid transitions of all groups, in group order, as arrays [N, ...].

    Keys: ``observations`` [N, O], ``actions``, ``old_log_probs``, ``old_values``, ``advantages``, and
    ``returns``, which are advantages + old values: TD(λ) targets of the value network.
    """
    groups: list[dict[str, NDArray[Any]]] = []
    for t in trajectories:
        advantages = generalized_advantages(
            t.rewards, t.values, t.next_values, t.terminated, t.truncated, gamma, gae_lambda
        )
        groups.append({
            "observations": t.observations[t.valid],
            "actions": t.actions[t.valid],
            "old_log_probs": t.log_probs[t.valid],
            "old_values": t.values[t.valid],
            "advantages": advantages[t.valid],
            "returns": (advantages + t.values)[t.valid],
        })
    return {key: np.concatenate([group[key] for group in groups]) for key in groups[0]}
