"""Learner and workers are killed in the middle of a training: it measures what an undisturbed one does, to the bit."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from rlflow import engine
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.ppo_learner import LEARNER
from rlflow.engine import api
from rlflow.engine.control_store import Event
from rlflow.engine.store_reader import StoreReader

ITERATIONS = 28
LEARNER_DIES = (0, 13, 20)  # before the first checkpoint, and after others
WORKER_DIES = (3, 13, 17)
SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 11, "num_envs": 4, "env_groups": 2, "rollout_length": 32, "minibatch_size": 32,
    "epochs": 4, "normalize_advantage": True, "learning_rate": "linear(1e-3, 0)",
}  # fmt: skip
TIMED = ("time_rollout", "time_learn", "steps_per_second")


class Killer:
    """Kills processes of a training at random moments of an iteration."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._timers: list[threading.Timer] = []

    def soon(self, learner: bool, algorithm: PPO) -> None:
        worker = api.current_backend().calls.watch(algorithm._learner._info.actor_id).worker
        processes = {event.subject: int(event.detail.split()[-1]) for event in events("joined")}
        victims = [pid for name, pid in processes.items() if name.startswith("w") and (name == worker) == learner]
        timer = threading.Timer(self._random.uniform(0, 0.02), self._kill, [victims])
        self._timers.append(timer)
        timer.start()

    def _kill(self, victims: list[int]) -> None:
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def join(self) -> None:
        for timer in self._timers:
            timer.join()


def events(kind: str) -> list[Event]:
    with StoreReader(api.current_backend().session.store) as store:
        return [event for event in store.events() if event.kind == kind]


def exact(value: Any) -> Any:
    """With arrays as their bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: exact(part) for name, part in value.items()}
    return [exact(part) for part in value] if isinstance(value, list | tuple) else value


def train(killer: Killer | None) -> list[dict[str, Any]]:
    algorithm = PPO(PPOConfig(**SMALL), ITERATIONS * 128)
    algorithm.setup()
    history = []
    for iteration in range(ITERATIONS):
        if killer is not None:
            for learner, when in ((True, LEARNER_DIES), (False, WORKER_DIES)):
                if iteration in when:
                    killer.soon(learner, algorithm)
        measured = algorithm.training_step()
        history.append({name: value for name, value in measured.items() if name not in TIMED})
    history.append(exact(algorithm.state()))
    algorithm.close()
    return history


@contextmanager
def killed_and_in_peace(train: Callable[[Killer | None], Any], seed: int) -> Iterator[None]:
    """Trains in one process, then on workers with a killer at work, whose engine still runs: the same numbers."""
    engine.init(backend="inline")
    in_peace = train(None)
    engine.shutdown()
    engine.init(num_cpus=2, preload=("numpy", "gymnasium", "rlflow.algorithms.rollout"))
    try:
        killer = Killer(seed)
        disturbed = train(killer)
        killer.join()
        assert disturbed == in_peace
        yield
    finally:
        engine.shutdown()


def test_killed_at_random_it_gives_the_numbers_of_a_training_in_peace() -> None:
    with killed_and_in_peace(train, seed=2):
        restored = events("actor restored")
        assert len(restored) >= 2 and len(events("died")) >= 4
        replayed = [int(event.detail.split(" calls replayed")[0].split()[-1]) for event in restored]
        assert max(replayed) <= LEARNER["checkpoint_every"]
