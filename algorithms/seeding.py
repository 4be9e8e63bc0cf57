"""Where randomness comes from: one seed, split by what it is for, never by which worker uses it.

``SeedSequence(seed, spawn_key=(role, group, iteration))`` gives streams that do not overlap, unlike
``seed + i``. The same config and seed then give the same numbers with any number of workers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a random stream is for. Append only: the numbers are part of every result."""

    WEIGHTS = 0
    ENVS = 1
    ACTIONS = 2
    MINIBATCHES = 3
    EVALUATION_ENVS = 4
    EVALUATION_ACTIONS = 5
    NOISE_TABLE = 6
    NOISE = 7


def generator(seed: int, role: Role, group: int = 0, iteration: int = 0) -> np.random.Generator:
    """A fresh generator for this role, group and iteration."""
    sequence = np.random.SeedSequence(seed, spawn_key=(role, group, iteration))
    return np.random.Generator(np.random.PCG64(sequence))


def integers(seed: int, role: Role, group: int, iteration: int, count: int) -> list[int]:
    """``count`` seeds (uint32) for things that want an int, such as ``env.reset(seed=...)``."""
    sequence = np.random.SeedSequence(seed, spawn_key=(role, group, iteration))
    return [int(value) for value in sequence.generate_state(count)]
