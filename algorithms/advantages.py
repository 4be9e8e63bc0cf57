"""From trajectories to what a policy gradient trains on: advantages, returns, valid rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .policies.protocol import BoundPolicy
from .rollout import Trajectory, ends_of

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


def vtrace_advantages(
    rewards: Floats, values: Floats, next_values: Floats, terminated: Bools, truncated: Bools, log_ratios: Floats,
    gamma: float, gae_lambda: float,
) -> tuple[Floats, Floats]:
    """GAE(λ) and value targets from actions of an older policy: V-trace, Espeholt et al. 2018 (arXiv:1802.01561).

    With ρ_t = min(1, π(a_t|s_t) / μ(a_t|s_t)), which is ρ̄ = c̄ = 1, equation 1 with the λ of remark 2 reads

    v_t − V(s_t) = ρ_t · (δ_t + γλ · (1 − done_t) · (v_{t+1} − V(s_{t+1}))),  δ_t as in GAE.

    What is in the brackets is the advantage of a_t, not weighted by its own ρ_t: the surrogate's ratio does that. With
    π = μ it is GAE(λ).

    Args:
        values, next_values: [T, B], under the *current* value function; else as in
            :func:`generalized_advantages`.
        log_ratios: [T, B], log π(a|s) − log μ(a|s), π being the current policy and μ the one that acted.

    Returns:
        advantages [T, B], value targets v [T, B].
    """
    advantages = rewards + gamma * next_values * ~terminated - values
    weights: Floats = np.exp(np.minimum(log_ratios, np.float32(0)))
    decay = np.float32(gamma * gae_lambda) * ~(terminated | truncated)
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] += decay[t] * weights[t + 1] * advantages[t + 1]
    advantages = advantages.astype(np.float32, copy=False)
    targets: Floats = values + weights * advantages
    return advantages, targets


def _from_older_policy(t: Trajectory, current: BoundPolicy, gamma: float, gae_lambda: float) -> tuple[Floats, ...]:
    """(advantages, value targets, values), each [T, B], by the current policy and values."""
    assert t.successors is not None
    shape = t.rewards.shape
    observations = t.observations.reshape(-1, t.observations.shape[-1])
    actions = t.actions.reshape(len(observations), *t.actions.shape[2:])
    rows, _, _ = current.step(observations, None)
    log_probs = current.head.log_prob(rows, current.log_std, actions).reshape(shape)
    values = current.values(observations, None).reshape(shape).copy()
    next_values = np.empty_like(values)
    next_values[:-1] = values[1:]
    next_values[ends_of(t.terminated | t.truncated)] = current.values(t.successors, None)
    advantages, targets = vtrace_advantages(
        t.rewards, values, next_values, t.terminated, t.truncated, log_probs - t.log_probs, gamma, gae_lambda
    )
    return advantages, targets, values


def flatten(
    trajectories: Sequence[Trajectory], gamma: float, gae_lambda: float, current: BoundPolicy | None = None
) -> dict[str, NDArray[Any]]:
    """The valid transitions of all groups, in group order, as arrays [N, ...].

    Keys: ``observations`` [N, O], ``actions``, ``old_log_probs``, ``old_values``, ``advantages``, and
    ``returns``, which are advantages + old values: TD(λ) targets of the value network.

    Args:
        current: the policy that is trained, if it is another than the one that acted. Then advantages and returns are
            V-trace's, and ``old_values`` are its values; ``old_log_probs`` stay those of the policy that acted.
    """
    groups: list[dict[str, NDArray[Any]]] = []
    for t in trajectories:
        if current is None:
            values = t.values
            advantages = generalized_advantages(
                t.rewards, values, t.next_values, t.terminated, t.truncated, gamma, gae_lambda
            )
            targets = advantages + values
        else:
            advantages, targets, values = _from_older_policy(t, current, gamma, gae_lambda)
        groups.append({
            "observations": t.observations[t.valid],
            "actions": t.actions[t.valid],
            "old_log_probs": t.log_probs[t.valid],
            "old_values": values[t.valid],
            "advantages": advantages[t.valid],
            "returns": targets[t.valid],
        })
    return {key: np.concatenate([group[key] for group in groups]) for key in groups[0]}
