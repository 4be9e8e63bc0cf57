"""Does memory stay flat? Runs millions of tiny tasks or calls and watches every process of the engine.

``python benchmarks/endurance.py --tasks 10_000_000 --mode drop`` prints, at each of ten checkpoints, the resident
memory of each process (MB), the size of the control store (MB), what the engine still knows (``census``) and whether
all resources came back. The last line is JSON. Modes: ``get`` fetches each result, ``drop`` lets the refs go unseen,
``actor`` calls an actor.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from rlflow import engine
from rlflow.engine import api

BATCH = 1000
CHECKPOINTS = 10
SETTLE_SECONDS = 120.0
MB = 1e6


@engine.remote
def nothing() -> None:
    return None


@engine.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def settle() -> None:
    """Waits until everything that was submitted has ended: only then memory can be compared."""
    backend = api.current_backend()
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        if not (backend.questions.census()["tasks"] or backend.unfinished.tasks()):  # type: ignore[attr-defined]
            return
        time.sleep(0.05)


def engine_processes() -> dict[str, psutil.Process]:
    """The driver and all below the supervisor, by name; workers in the order in which they started."""
    supervisor = psutil.Process(api.current_backend().supervisor_pid)  # type: ignore[attr-defined]
    below = sorted(supervisor.children(recursive=True), key=lambda process: process.create_time())
    store = str(Path(api.current_backend().session.store) / "data.mdb")  # type: ignore[attr-defined]
    named = {"driver": psutil.Process(), "supervisor": supervisor}
    for process in below:
        parent = process.parent()
        if parent is not None and parent.pid != supervisor.pid:
            name = f"worker {process.pid}"
        elif any(os.readlink(fd) == store for fd in Path(f"/proc/{process.pid}/fd").iterdir()):
            name = "node"
        else:
            name = "zygote"
        named[name] = process
    return named


def memory(process: psutil.Process) -> float:
    """Its own memory: pages of a mapped file belong to the kernel's cache, and are given back when others need them."""
    info = process.memory_info()
    return float(info.rss - info.shared) / MB


def store_bytes() -> int:
    path = Path(api.current_backend().session.store) / "data.mdb"  # type: ignore[attr-defined]
    return path.stat().st_blocks * 512


def look(done: int, began: float) -> dict[str, Any]:
    settle()
    return {
        "tasks": done,
        "seconds": round(time.perf_counter() - began, 1),
        "memory_mb": {name: round(memory(process), 1) for name, process in engine_processes().items()},
        "store_mb": round(store_bytes() / MB, 1),
        "census": {name: count for name, count in api.current_backend().questions.census().items() if count},
        "all_resources_free": engine.available_resources() == engine.cluster_resources(),
    }


def run(mode: str, tasks: int) -> list[dict[str, Any]]:
    actor = Counter.remote() if mode == "actor" else None
    call = nothing.remote if actor is None else actor.add.remote
    looks = []
    began = time.perf_counter()
    done = 0
    for checkpoint in range(1, CHECKPOINTS + 1):
        while done < tasks * checkpoint // CHECKPOINTS:
            if mode == "drop":
                for _ in range(BATCH):
                    call()
            else:
                engine.get([call() for _ in range(BATCH)])
            done += BATCH
        looks.append(look(done, began))
        print(looks[-1], flush=True)
    return looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000_000)
    parser.add_argument("--mode", choices=("get", "drop", "actor"), default="get")
    parser.add_argument("--cpus", type=float, default=2)
    parser.add_argument("--store-limit", type=int, help="bytes; the engine's default if left out")
    arguments = parser.parse_args()
    engine.init(num_cpus=arguments.cpus, store_limit=arguments.store_limit)
    try:
        looks = run(arguments.mode, arguments.tasks)
        print(json.dumps({"mode": arguments.mode, "cpus": arguments.cpus, "looks": looks}))
    finally:
        engine.shutdown()


if __name__ == "__main__":
    main()
