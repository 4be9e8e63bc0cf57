"""rlflow: reinforcement-learning training on a task and actor engine of its own.

    import rlflow

    run = rlflow.train("ppo", env="CartPole-v1", stop={"env_steps": 50_000})
    print(run.evaluation["mean_return"], run.path)

The engine is :mod:`rlflow.engine`, the algorithms are in :mod:`rlflow.algorithms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run, load, train

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    # On first use, so that worker processes and `rlflow --help` do not pay for what they do not need.
    if name in ("Run", "load", "train"):
        from . import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
