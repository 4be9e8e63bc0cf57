"""The mixed load of ``chaos.py``: each piece knows what its results are when nothing is killed.

Tasks are functions of their arguments, so their results are computed in this process as well. Actors have a twin: the
same class as a plain object in this process, which is told the same. A training's twin is the same training on an
engine that nobody harms.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import Any

import numpy as np

import rlflow
from rlflow import engine
from rlflow.run_folder import RunFolder

LARGE = 60_000
"""Numbers of an array that goes through shared memory: half a megabyte."""

TREE_DEPTH = 4
CALLS_PER_ROUND = 20
PATIENCE = 120.0
"""Seconds after which whoever waits gives up: what has not come by then never will."""

TRAINING: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 5, "num_envs": 4, "env_groups": 2, "rollout_length": 64, "minibatch_size": 64,
    "epochs": 2, "stop": {"env_steps": 1024}, "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 512},
}  # fmt: skip
TIMES = ("seconds", "per_second", "time", "memory")
"""Parts of the names of metrics that no two runs share."""


class Difference(AssertionError):
    """A result is not that of the undisturbed run."""


def same(what: str, found: object, wanted: object) -> None:
    if isinstance(wanted, np.ndarray):
        equal = isinstance(found, np.ndarray) and found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()
    else:
        equal = found == wanted
    if not equal:
        raise Difference(f"{what}: got {str(found)[:500]}, undisturbed it is {str(wanted)[:500]}")


class Stalls:
    """How long callers waited, by what they waited for."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self.results = 0

    def get(self, what: str, refs: Any) -> Any:
        began = time.perf_counter()
        values = engine.get(refs, timeout=PATIENCE)
        self.longest[what] = max(self.longest.get(what, 0.0), time.perf_counter() - began)
        self.results += len(refs) if isinstance(refs, list) else 1
        return values


# ---------------------------------------------------------------- tasks


def leaf(seed: int, path: int) -> int:
    return zlib.crc32(f"{seed}/{path}".encode())


def tree_of(seed: int, depth: int, path: int = 1) -> int:
    """The sum over a tree's leaves, without an engine."""
    if depth == 0:
        return leaf(seed, path)
    return tree_of(seed, depth - 1, 2 * path) + tree_of(seed, depth - 1, 2 * path + 1)


@engine.remote(max_retries=-1)
def tree(seed: int, depth: int, path: int = 1) -> int:
    if depth == 0:
        return leaf(seed, path)
    halves = [tree.remote(seed, depth - 1, 2 * path), tree.remote(seed, depth - 1, 2 * path + 1)]
    return sum(engine.get(halves))


@engine.remote(max_retries=-1)
def numbers(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(LARGE)


@engine.remote(max_retries=-1)
def scaled(array: np.ndarray[Any, Any], factor: float) -> np.ndarray[Any, Any]:
    return array * factor


@engine.remote(max_retries=-1)
def digest(arrays: list[engine.ObjectRef]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in engine.get(arrays))).hexdigest()


def task_trees(round_: int, stalls: Stalls) -> None:
    seeds = [100 * round_ + i for i in range(3)]
    found = stalls.get("trees of tasks", [tree.remote(seed, TREE_DEPTH) for seed in seeds])
    same(f"task trees of round {round_}", found, [tree_of(seed, TREE_DEPTH) for seed in seeds])


def large_objects(round_: int, stalls: Stalls) -> None:
    """Made by tasks and by ``put``, passed on by ref and in data, and compared byte by byte."""
    made = [numbers.remote(1000 * round_ + i) for i in range(3)]
    own = np.random.default_rng(round_).random(LARGE)
    passed = [scaled.remote(ref, 3.0) for ref in (*made, engine.put(own))]
    hashed = digest.remote(passed)
    wanted = [np.random.default_rng(1000 * round_ + i).random(LARGE) * 3.0 for i in range(3)] + [own * 3.0]
    name = f"large objects of round {round_}"
    same(f"{name}, hash", stalls.get("large objects", hashed),
         hashlib.sha256(b"".join(array.tobytes() for array in wanted)).hexdigest())
    for i, (array, right) in enumerate(zip(stalls.get("large objects", passed), wanted, strict=True)):
        same(f"{name}, array {i}", array, right)


def round_trips(round_: int, stalls: Stalls) -> None:
    for path in range(10):
        same(f"task {path} of round {round_}", stalls.get("a task", tree.remote(round_, 0, path)), leaf(round_, path))


# ---------------------------------------------------------------- actors


class Account:
    """Its state tells which calls it has had and in which order, each once; an array shows that bytes come through."""

    def __init__(self) -> None:
        self.calls = 0
        self.state = 0
        self.array = np.zeros(LARGE)

    def add(self, entry: int) -> tuple[int, int]:
        self.calls += 1
        self.state = zlib.crc32(entry.to_bytes(8, "big"), self.state)
        return self.calls, self.state

    def add_array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.add(zlib.crc32(array.tobytes()))
        self.array = self.array / 2 + array
        return self.array

    def pass_on(self, other: engine.ActorHandle, entry: int) -> tuple[int, int]:
        """A call that an actor makes itself: applied once, however often this one is replayed."""
        self.add(entry)
        answer: tuple[int, int] = engine.get(other.add.remote(entry), timeout=PATIENCE)
        return answer


class Accounts:
    """Two actors, the second of which is called by the first as well, and their twins."""

    def __init__(self, checkpoint_every: int = 25) -> None:
        actor = engine.remote(max_restarts=-1, checkpoint_every=checkpoint_every)(Account)
        self.actors = [actor.remote(), actor.remote()]
        self.twins = [Account(), Account()]

    def ids(self) -> list[str]:
        return [actor._info.actor_id.hex() for actor in self.actors]

    def round(self, round_: int, stalls: Stalls) -> None:
        (first, second), (twin, other) = self.actors, self.twins
        name = f"actors of round {round_}"
        entries = [CALLS_PER_ROUND * round_ + i for i in range(CALLS_PER_ROUND)]
        refs = [first.add.remote(entry) for entry in entries]
        same(f"{name}, calls at once", stalls.get("calls at once", refs), [twin.add(entry) for entry in entries])
        for entry in entries[:5]:
            same(f"{name}, call {entry}", stalls.get("a call", second.add.remote(entry)), other.add(entry))
        array = np.random.default_rng(round_).random(LARGE)
        same(f"{name}, array", stalls.get("a call with an array", first.add_array.remote(numbers.remote(round_))),
             twin.add_array(array))
        twin.add(round_)
        same(f"{name}, call of an actor's", stalls.get("a call in a call", first.pass_on.remote(second, round_)),
             other.add(round_))


# ---------------------------------------------------------------- training


def train() -> dict[str, Any]:
    """A small PPO run on the engine that runs: everything it measured that is no time."""
    run = rlflow.train("ppo", **TRAINING, progress=False)
    rows = [
        {name: value for name, value in row.items() if not any(part in name for part in TIMES)}
        for row in RunFolder(run.path).read_metrics()
    ]
    return {"metrics": rows, "evaluation": run.evaluation}
