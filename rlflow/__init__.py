"""rlflow: reinforcement-learning training on a task and actor engine of its own."""

__version__ = "0.1.0"
