"""What a crash costs: calls of an actor that are run again, tasks lost from a second's work, and how long callers wait.

``python benchmarks/recovery.py`` kills with SIGKILL, measures, and prints three tables; the JSON has every sample.

- *An actor* with checkpoints has run many calls when its process dies: how many are run again, and after how long the
  next one is answered.
- *Chains of tasks*, each of which begins when the one before it has ended, on all CPUs: how many end in each tenth of a
  second before and after a worker dies, and when the rate of before is back.
- *The node daemon*: the longest that a caller waits which does one thing after the other (small tasks, calls of an
  actor, calls of a recoverable one), around the daemon's death and, for comparison, in as much time in peace.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import machine, print_table, short, write_json

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import engine_processes

LINK_SECONDS = 0.01
"""A task of a chain."""

BIN_SECONDS = 0.1
BACK = 0.9
"""Of the rate of before: then it is back."""

PATIENCE = 60.0


@engine.remote
def nothing() -> None:
    return None


@engine.remote(max_retries=-1)
def link(number: int) -> int:
    time.sleep(LINK_SECONDS)
    return number


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()


def an_actor(calls: int, every: int, kills: int) -> list[dict[str, float]]:
    """One sample a kill: calls run before it in all, calls run again, seconds until the next one was answered."""
    counter = engine.remote(max_restarts=-1, checkpoint_every=every)(Counter).remote()
    expected = 0
    samples = []
    for kill in range(kills):
        more = calls + kill * every // kills  # so that it dies at other distances from its last checkpoint
        answers = engine.get([counter.add.remote() for _ in range(more)], timeout=PATIENCE)
        pid = engine.get(counter.pid.remote())
        expected += more
        assert answers[-1] == expected
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        answer = engine.get(counter.add.remote(), timeout=PATIENCE)
        seconds = time.perf_counter() - began
        expected += 1
        assert answer == expected, f"{answer} after a restart, and not {expected}"
        samples.append({"calls": more, "run_again": replayed()[-1], "seconds": seconds})
    return samples


def replayed() -> list[int]:
    with StoreReader(api.current_backend().session.store) as store:  # type: ignore[attr-defined]
        details = [event.detail for event in store.events() if event.kind == "actor restored"]
    return [int(detail.split(" calls replayed")[0].split()[-1]) for detail in details]


def chains(cpus: int, seconds: float) -> dict[str, Any]:
    """Ends of tasks by tenths of a second, from ``seconds`` before a worker's death to as long after it."""
    engine.get([link.remote(0) for _ in range(2 * cpus)])  # all workers are there
    began = time.perf_counter()
    died_at = 0.0
    ended: list[float] = []
    running = [link.remote(0) for _ in range(2 * cpus)]
    while time.perf_counter() - began < 2 * seconds:
        if not died_at and time.perf_counter() - began > seconds:
            died_at = time.perf_counter() - began
            os.kill(engine_processes().workers[-1], signal.SIGKILL)
        (ready, *_), _ = engine.wait(running, timeout=PATIENCE)
        ended.append(time.perf_counter() - began)
        running.remove(ready)
        running.append(link.remote(engine.get(ready) + 1))
    engine.get(running, timeout=PATIENCE)
    bins = [0] * round(2 * seconds / BIN_SECONDS)
    for moment in ended:
        bins[min(len(bins) - 1, int((moment - died_at + seconds) / BIN_SECONDS))] += 1
    middle = len(bins) // 2
    before = statistics.median(bins[:middle])
    back = next((i for i, count in enumerate(bins[middle:]) if count >= BACK * before), None)
    return {
        "tasks_per_bin": bins, "before": before, "least_after": min(bins[middle:-1]),
        "back_after_s": None if back is None else back * BIN_SECONDS,
    }


def a_caller(call: Callable[[], Any], kills: int, seconds: float) -> dict[str, list[float]]:
    """The longest waits around each death of the daemon, and in peace."""
    for _ in range(100):
        call()
    waits: dict[str, list[float]] = {"in peace": [], "daemon killed": []}
    for kind, longest in waits.items():
        for _ in range(kills):
            longest.append(longest_wait(call, kind == "daemon killed", seconds))
    return waits


def longest_wait(call: Callable[[], Any], kill: bool, seconds: float) -> float:
    longest = 0.0
    last = began = time.perf_counter()
    while last - began < seconds:
        if kill and last - began > seconds / 3:
            kill = False
            kill_daemon()
            last = time.perf_counter()  # to find the daemon's pid took a while
        call()
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
    return longest


def kill_daemon() -> None:
    deadline = time.monotonic() + PATIENCE
    while not (daemon := engine_processes().daemon):
        if time.monotonic() > deadline:
            raise TimeoutError("there is no daemon")
    os.kill(daemon, signal.SIGKILL)


def callers(kills: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    plain = engine.remote(Counter).remote()
    recoverable = engine.remote(max_restarts=-1, checkpoint_every=500)(Counter).remote()
    kinds: dict[str, Callable[[], Any]] = {
        "small tasks": lambda: engine.get(nothing.remote(), timeout=PATIENCE),
        "calls of an actor": lambda: engine.get(plain.add.remote(), timeout=PATIENCE),
        "calls of a recoverable actor": lambda: engine.get(recoverable.add.remote(), timeout=PATIENCE),
    }
    return {kind: a_caller(call, kills, seconds) for kind, call in kinds.items()}


def print_all(document: dict[str, Any]) -> None:
    samples = document["actor"]
    print_table(
        "An actor with checkpoints is killed", ["calls before", "run again", "answers again after"],
        [[short(sample["calls"]), short(sample["run_again"]), f"{sample['seconds']:.3f} s"] for sample in samples],
    )
    rows = [
        [short(run["before"]), " ".join(map(str, run["tasks_per_bin"][len(run["tasks_per_bin"]) // 2 :][:10])),
         "not" if run["back_after_s"] is None else f"{run['back_after_s']:.1f} s"]
        for run in document["chains"]
    ]
    print_table(
        f"Chains of {LINK_SECONDS * 1e3:g} ms tasks, a worker is killed",
        ["tasks in 0.1 s before", "in each 0.1 s after", "back after"], rows,
    )
    rows = [
        [kind, *(f"{statistics.median(waits[when]):.3f} ({max(waits[when]):.3f}) s" for when in waits)]
        for kind, waits in document["callers"].items()
    ]
    print_table("Longest wait of a caller, median (worst)", ["caller", "in peace", "daemon killed"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000, help="of the actor, before each kill")
    parser.add_argument("--checkpoint-every", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5, help="of the actor, of a worker, and of the daemon by caller")
    parser.add_argument(
        "--seconds", type=float, default=1.5,
        help="around each kill; ten deaths of the daemon within ten seconds would end the session",
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the figures go; benchmarks/results/ if left out")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "calls": arguments.calls, "checkpoint_every": arguments.checkpoint_every, "kills": arguments.kills,
        "cpus": arguments.cpus, "machine": machine(),
    }
    engine.init(num_cpus=arguments.cpus, log_to_driver=False)
    try:
        document["actor"] = an_actor(arguments.calls, arguments.checkpoint_every, arguments.kills)
        document["chains"] = [chains(arguments.cpus, arguments.seconds) for _ in range(arguments.kills)]
        document["callers"] = callers(arguments.kills, arguments.seconds)
    finally:
        engine.shutdown()
    print_all(document)
    print(f"written to {write_json(document, arguments.json, 'recovery')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
