"""Is every result right while processes die? A mixed load under random kills, compared with what it gives undisturbed.

``python benchmarks/chaos.py --minutes 10 --seed 1`` runs task trees, large objects, actors with checkpoints and PPO
trainings (``chaos_load.py``) while workers, actors and the node daemon are killed at random, with SIGKILL. In the end
every result must have equalled the undisturbed run's, all resources must be free, no object, task or actor alive, and
no process, descriptor, file or shared memory left. It prints the figures and writes them as JSON; what differed ends
it with exit code 1.

Trainings notice nothing of it: rollouts are run again, and the learner is an actor with checkpoints. Spared are
supervisor, zygote and this process: their deaths end a session by design.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from chaos_load import Accounts, Stalls, large_objects, round_trips, same, task_trees, train
from report import machine, short, write_json

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.control_store import Event
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes, leak_check

KINDS = ("worker", "actor", "learner", "daemon")
LONG_PAUSES = {"daemon": 3.0, "learner": 10.0}
"""Least seconds between two deaths: a daemon that dies again and again is not started anew, and a learner imports
torch, for seconds on a busy machine, before it can go on; its restarts are counted."""

LOOK_SECONDS = 0.2
"""How often the killer asks the control store who became which process."""

START_SECONDS = 60.0
PRELOAD = ("numpy", "gymnasium", "rlflow.algorithms.rollout")
"""As ``rlflow.train`` has it: a worker that takes longer to import than it lives gets nothing done."""


class Killer:
    """A thread that kills one process after the other."""

    def __init__(self, seed: int, kinds: Sequence[str], pause: float, actors: Callable[[], Sequence[str]]) -> None:
        self.kills: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._random = random.Random(seed)
        self._kinds = kinds
        self._pause = pause
        self._actors = actors
        self._ends = threading.Event()
        self._killed_at = dict.fromkeys(LONG_PAUSES, time.monotonic())
        self._looked = 0.0
        self._pids: dict[str, int] = {}
        """Of the workers that have joined, by name."""
        self._store = StoreReader(api.current_backend().session.store)  # type: ignore[attr-defined]
        self._session = api.current_backend().session  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._run, name="killer")

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        try:
            self._kill_until_the_end()
        except Exception as error:
            self.failure = error

    def _kill_until_the_end(self) -> None:
        while not self._ends.wait(self._random.uniform(0, 2 * self._pause)):
            kind = self._random.choice(self._kinds)
            if kind in LONG_PAUSES and time.monotonic() - self._killed_at[kind] < LONG_PAUSES[kind]:
                continue
            victims = self._victims(kind)
            if not victims:
                continue
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(victims), signal.SIGKILL)
                self.kills[kind] += 1
                self._killed_at[kind] = time.monotonic()

    def _victims(self, kind: str) -> list[int]:
        processes = engine_processes()
        if kind == "daemon":
            return [processes.daemon] if processes.daemon else []
        tasks = self._last_tasks(set(processes.workers))
        ours = set(self._actors())
        return [pid for pid, task in tasks.items() if self._kind_of(task, ours) == kind]

    def _kind_of(self, task: str, ours: set[str]) -> str:
        if task in ours:
            return "actor"
        spec = self._store.spec(bytes.fromhex(task))
        return "learner" if spec is not None and spec.recipe.kind == m.ACTOR else "worker"

    def _last_tasks(self, living: set[int]) -> dict[int, str]:
        """The task that each process began last; an actor's is its own creation."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            joined = (event for event in self._store.events() if event.kind == "joined")
            self._pids = {event.subject: int(event.detail.rpartition("pid ")[2]) for event in joined}
        found = {}
        for name, pid in self._pids.items():
            if pid in living:
                with suppress(FileNotFoundError):
                    found[pid] = self._session.started_task(name).read_bytes().hex()
        return {pid: task for pid, task in found.items() if task}  # empty: just being made


class Trainings(threading.Thread):
    """One training after the other, beside everything else."""

    def __init__(self, undisturbed: dict[str, Any], ends: Callable[[], bool]) -> None:
        super().__init__(name="trainings")
        self.ended = 0
        self.failure: BaseException | None = None
        self._undisturbed = undisturbed
        self._ends = ends

    def run(self) -> None:
        try:
            while not self._ends():
                same(f"training {self.ended}", train(), self._undisturbed)
                self.ended += 1
        except BaseException as error:
            self.failure = error


def load_until(ends: Callable[[], bool], accounts: Accounts, stalls: Stalls, trainings: Trainings) -> int:
    """Rounds of everything; returns how many. Raises ``Difference`` with what was not as it should be."""
    rounds = 0
    while not ends() and trainings.failure is None:
        for part in (task_trees, large_objects, round_trips, accounts.round):
            part(rounds, stalls)
        rounds += 1
    return rounds


def disturbed(arguments: argparse.Namespace, undisturbed: dict[str, Any]) -> dict[str, Any]:
    """The load under kills, on the engine that runs; leaves it as it found it or raises."""
    stalls = Stalls()
    until = time.monotonic() + 60 * arguments.minutes
    accounts = Accounts()

    def ends() -> bool:
        return time.monotonic() > until

    trainings = Trainings(undisturbed, ends)
    killer = Killer(arguments.seed, arguments.kinds, arguments.pause, accounts.ids)
    try:
        with killer:
            trainings.start()
            rounds = load_until(ends, accounts, stalls, trainings)
    finally:
        trainings.join()  # in peace
    if trainings.failure is not None:
        raise trainings.failure
    if killer.failure is not None:
        raise killer.failure
    accounts.round(rounds, stalls)  # nobody is killed any more: their final state, by every answer
    return {
        "rounds": rounds + 1,
        "results_compared": stalls.results,
        "trainings_compared": trainings.ended,
        "kills": dict(killer.kills),
        "longest_stall_s": {what: round(seconds, 3) for what, seconds in sorted(stalls.longest.items())},
        **recoveries(audit_log()),
    }


def audit_log() -> list[Event]:
    with StoreReader(api.current_backend().session.store) as store:  # type: ignore[attr-defined]
        return list(store.events())


def recoveries(events: Sequence[Event]) -> dict[str, int]:
    """What the engine did about the deaths, from its audit log."""
    kinds = Counter(event.kind for event in events)
    restored = [event.detail for event in events if event.kind == "actor restored"]
    replayed = [int(detail.split(" calls replayed")[0].split()[-1]) for detail in restored]
    return {
        "deaths_seen": kinds["died"],
        "tasks_run_again": kinds["retried"],
        "daemons_replaced": kinds["node restarted"],
        "actors_restored": len(restored),
        "calls_replayed": sum(replayed),
        "most_calls_replayed_at_once": max(replayed, default=0),
    }


def start(cpus: int) -> None:
    engine.init(num_cpus=cpus, log_to_driver=False, preload=PRELOAD)
    supervisor = psutil.Process(engine_processes().supervisor)
    deadline = time.monotonic() + START_SECONDS
    while len(supervisor.children(recursive=True)) < 2 + cpus:  # daemon, zygote and workers
        if time.monotonic() > deadline:
            raise TimeoutError(f"the engine's processes did not start within {START_SECONDS:g} s")
        time.sleep(0.02)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        os.chdir(folder)  # trainings leave their runs here
        engine.init(backend="inline")
        undisturbed = train()
        engine.shutdown()
        with leak_check():
            start(arguments.cpus)
            try:
                with leak_check(running_engine=True):
                    figures = disturbed(arguments, undisturbed)
            finally:
                engine.shutdown()
        os.chdir(Path(folder).parent)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two kills, on average")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="who is killed")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the figures go; benchmarks/results/ if left out")
    arguments = parser.parse_args()
    if arguments.json is not None:
        arguments.json = arguments.json.absolute()
    document: dict[str, Any] = {
        "minutes": arguments.minutes, "seed": arguments.seed, "pause_s": arguments.pause, "cpus": arguments.cpus,
        "machine": machine(),
    }
    try:
        document |= run(arguments)
        document["difference"] = None
    except Exception as error:
        document["difference"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        for name, value in document.items():
            if name != "machine":
                print(f"{name}: {short(value) if isinstance(value, float) else value}")
        print(f"written to {write_json(document, arguments.json, 'chaos')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
