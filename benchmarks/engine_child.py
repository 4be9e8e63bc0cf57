"""One side of engine_vs_ray in one process: starts an engine, times the asked workloads, writes JSON lines.

Not meant to be called by hand; ``engine_vs_ray.py`` runs it with each side's own Python. The records go to a
file, because stdout belongs to the engines.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Not imported here: workloads, and with it NumPy. The start-up rows are timed in a process that has nothing yet.

Program = Callable[[], AbstractContextManager[Callable[[], float]]]
"""Opens a workload on the engine or pool that runs here; gives its step."""

POOLS = {"pool": "Pool", "executor": "Executor"}
"""Sides that are no engines, and what to call them: the standard library's two ways to run plain tasks."""

WARM_UP_SHARE = 0.3
"""Of the measured seconds; every workload also gets at least two warm-up steps."""

FIRST_RESULT = "init to first result"
IMPORT_AND_FIRST_RESULT = "import, init, first result"


def load_engine(side: str) -> ModuleType:
    return importlib.import_module("ray" if side == "ray" else "rlflow.engine")


def init_options(side: str, backend: str, cpus: int) -> dict[str, Any]:
    if side == "ray":
        return {"num_cpus": cpus, "log_to_driver": False, "include_dashboard": False}
    return {"num_cpus": cpus, "log_to_driver": False, "backend": backend}


def features(side: str, backend: str) -> list[str]:
    """What is on and what is off on a side, for the header of the report."""
    if side in POOLS:
        name = "multiprocessing.Pool" if side == "pool" else "concurrent.futures.ProcessPoolExecutor"
        return [f"{name} with its defaults", "no lineage, no dependencies, no shared objects, no retries"]
    if side == "ray":
        return ["its defaults, without the dashboard and usage reports", "lineage in memory only"]
    if backend == "inline":
        return ["inline backend: no worker processes, no lineage; its figures compare with nothing"]
    return ["its defaults", "lineage on: task specs are in the LMDB control store before they are dispatched"]


def describe(side: str, backend: str) -> dict[str, Any]:
    """Which releases run here, and with which features."""
    packages = ("ray" if side == "ray" else "rlflow", "numpy", "gymnasium", "pyzmq", "lmdb", "msgspec")
    versions = {"python": platform.python_version()}
    for name in () if side in POOLS else packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"kind": "side", "side": side, "backend": backend, "versions": versions,
            "features": features(side, backend)}


class Records:
    """Appends one JSON object a line; each is on disk before the next workload starts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def repeat(step: Any, seconds: float) -> tuple[float, float, list[float]]:
    """Repeats ``step`` for ``seconds``: the amount done, the time it took, the time of each step."""
    clock = time.perf_counter
    amount = 0.0
    times: list[float] = []
    start = now = clock()
    while now - start < seconds or not times:
        before = now
        amount += step()
        now = clock()
        times.append(now - before)
    return amount, now - start, times


def failure(error: Exception) -> dict[str, str]:
    """How the record of a workload that raised goes on."""
    unsupported = type(error).__name__ == "UnsupportedError"
    return {
        "status": "unsupported" if unsupported else "error",
        "error": f"{type(error).__name__}: {error}".strip(),
        "traceback": traceback.format_exc(),
    }


def measure(workload: Any, program: Program, seconds: float) -> dict[str, Any]:
    """Times one workload. A failure is a record too."""
    record: dict[str, Any] = {"kind": "row", "workload": workload.name, "unit": workload.unit}
    try:
        with program() as step:
            if workload.once:
                amount, elapsed, times = repeat(step, 0)
            else:
                step()
                repeat(step, seconds * WARM_UP_SHARE)
                amount, elapsed, times = repeat(step, seconds)
    except Exception as error:
        return record | failure(error)
    record |= {"status": "ok", "value": amount / elapsed, "steps": len(times), "seconds": elapsed}
    if workload.latency and len(times) >= 2:
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        record |= {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}
    return record


def measure_all(records: Records, programs: dict[str, Program], seconds: float) -> None:
    from workloads import WORKLOADS

    for name, program in programs.items():
        records.write({"kind": "begin", "workload": name})
        records.write(measure(WORKLOADS[name], program, seconds))
        gc.collect()  # actors and objects of one workload are gone before the next begins


def measure_on_engine(records: Records, asked: argparse.Namespace) -> None:
    from workloads import WORKLOADS

    api = load_engine(asked.side)
    api.init(**init_options(asked.side, asked.backend, asked.cpus))
    measure_all(records, {n: partial(WORKLOADS[n].prepare, api) for n in asked.workloads}, asked.seconds)
    api.shutdown()


def measure_on_pool(records: Records, asked: argparse.Namespace) -> None:
    from workloads.process_pools import ON_POOLS, opened

    with opened(asked.side, asked.cpus) as (submit, result):
        measure_all(records, {n: partial(ON_POOLS[n], submit, result) for n in asked.workloads}, asked.seconds)


def measure_start_up(side: str, backend: str, cpus: int) -> list[dict[str, Any]]:
    """From nothing to the first task's result, in a process that has done nothing else."""
    names = (FIRST_RESULT, IMPORT_AND_FIRST_RESULT)
    rows = [{"kind": "row", "workload": name, "unit": "s"} for name in names]
    try:
        start = time.perf_counter()
        api = load_engine(side)
        imported = time.perf_counter()
        api.init(**init_options(side, backend, cpus))

        @api.remote
        def first() -> bytes:
            return b"ok"

        api.get(first.remote())
        end = time.perf_counter()
    except Exception as error:
        return [row | failure(error) for row in rows]
    api.shutdown()
    return [
        row | {"status": "ok", "value": end - begin}
        for row, begin in zip(rows, (imported, start), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("ours", "ray", *POOLS), required=True)
    parser.add_argument("--backend", default="local")
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-up", action="store_true")
    parser.add_argument("workloads", nargs="*")
    asked = parser.parse_args()
    records = Records(asked.out)

    if asked.start_up:
        for record in measure_start_up(asked.side, asked.backend, asked.cpus):
            records.write(record)
        return
    records.write(describe(asked.side, asked.backend))
    if asked.side in POOLS:
        measure_on_pool(records, asked)
    else:
        measure_on_engine(records, asked)


if __name__ == "__main__":
    main()
