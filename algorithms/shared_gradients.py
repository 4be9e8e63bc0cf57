"""Gradients of one minibatch that several processes take a part of each: ``learners`` of PPO.

The parts are tasks of the learner, pure functions of weights and rows: (weights, rows) → gradient. The learner takes
the first part itself, adds the others in their order, and does the step alone. So there is one state, in one actor,
and one thing to recover: a part whose process dies is run again, and a learner that dies is replayed with the parts
that are done already. Ranks that hold a copy of the state each and average by ``torch.distributed`` would save sending
the weights, and would all have to go back to the same step when one of them dies.

Worth it where a gradient takes longer than sending the weights and a task's round trip, some 0.3 ms: wide networks and
large minibatches, on a machine with cores to spare.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

import rlflow.engine as engine

from .policies.mlp import Floats
from .policies.protocol import Policy

if TYPE_CHECKING:
    from .learner import Learner

MakeLoss = Callable[[Policy], Any]
"""Gives a loss for a policy, wherever it is called; its arguments travel with it."""


def gradient_of_part(
    run: str, policy: Policy, make_loss: MakeLoss, weights: Floats, observations: Any, batch: Any
) -> tuple[Floats, dict[str, float]]:
    """d loss / d parameters [num_parameters] and statistics, of some rows of a minibatch."""
    learner, loss = _here(run, policy, make_loss, weights)
    return gradient_and_statistics(learner, loss, observations, batch)


def gradient_and_statistics(
    learner: Learner, loss: Any, observations: Any, batch: Any
) -> tuple[Floats, dict[str, float]]:
    gradient, statistics = learner.gradient_of(observations, batch.for_loss(loss), loss)
    return gradient, {name: float(value) for name, value in statistics.items()}


class SharedGradient:
    """The learner's side.

    Args:
        parts: how many processes take part, this one included.
    """

    def __init__(self, policy: Policy, make_loss: MakeLoss, parts: int) -> None:
        self._run, self._parts = uuid4().hex, parts
        self._what = engine.put(policy), engine.put(make_loss)
        self._task = engine.remote(gradient_of_part)

    def into(self, learner: Learner, loss: Any, observations: Floats, batch: Any) -> dict[str, float]:
        """Leaves the gradient of the whole minibatch [N, ...] in ``learner``; returns its statistics."""
        count = len(observations)
        ends = [count * part // self._parts for part in range(self._parts + 1)]
        rows = [slice(start, end) for start, end in pairwise(ends) if end > start]
        weights = engine.put(learner.parameters.copy())
        refs = [
            self._task.remote(self._run, *self._what, weights, observations[part], batch.rows(part))
            for part in rows[1:]
        ]
        done = [gradient_and_statistics(learner, loss, observations[rows[0]], batch.rows(rows[0])), *engine.get(refs)]
        shares = [np.float32((part.stop - part.start) / count) for part in rows]
        np.multiply(done[0][0], shares[0], out=learner.gradient)
        for share, (gradient, _) in zip(shares[1:], done[1:], strict=True):
            learner.gradient += share * gradient
        return {
            name: float(sum(share * told[name] for share, (_, told) in zip(shares, done, strict=True)))
            for name in done[0][1]
        }


_KEPT = 2
_learners: OrderedDict[str, tuple[Learner, Any]] = OrderedDict()
"""By run: a learner keeps its buffers from one gradient to the next."""


def _here(run: str, policy: Policy, make_loss: MakeLoss, weights: Floats) -> tuple[Learner, Any]:
    found = _learners.get(run)
    if found is None:
        found = _learners[run] = policy.learner(weights), make_loss(policy)
        while len(_learners) > _KEPT:
            _learners.popitem(last=False)
    found[0].parameters[...] = weights
    return found
