"""Does the memory of lineage stay bounded? A chain of tasks, each of which makes a large array from the last one's.

``python benchmarks/lineage_chain.py --links 100_000`` drops each array when the next one is there, and prints at each
of ten checkpoints the memory of driver and node (MB), the size of the control store (MB) and how many tasks the node
remembers for the sake of a replay. In the end it deletes the memory of the last array, gets it, and counts how many
tasks were run again for that. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from endurance import engine_processes, memory
from numpy.typing import NDArray

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.store_reader import StoreReader
from rlflow.engine.testing import lose

CHECKPOINTS = 10
WINDOW = 1000
"""Links that are submitted ahead of those that have ended."""

SIZE = 2048
"""Of the arrays, whose elements have 8 bytes."""

MB = 1e6


@engine.remote
def begin() -> NDArray[np.float64]:
    return np.zeros(SIZE)


@engine.remote
def following(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return array + 1


def rebuilt(store: Path) -> int:
    """Tasks that have been run again because what they had made was lost."""
    with StoreReader(store) as reader:
        return sum(event.kind == "rebuilt" for event in reader.events())


def run(links: int, store_limit: int) -> dict[str, Any]:
    engine.init(num_cpus=2, store_limit=store_limit)
    store = Path(api.current_backend().session.store)  # type: ignore[attr-defined]
    checkpoints = []
    began = time.perf_counter()
    last = begin.remote()
    for link in range(1, links + 1):
        last = following.remote(last)
        if not link % WINDOW:
            engine.wait([last])
        if not link % max(1, links // CHECKPOINTS):
            engine.wait([last])
            processes = engine_processes()
            checkpoints.append({
                "links": link, "seconds": round(time.perf_counter() - began, 1),
                "store_mb": round((store / "data.mdb").stat().st_size / MB, 1),
                "remembered": api.current_backend().questions.census()["ancestors"],
                "tracked": api.current_backend().questions.census()["tracked objects"],
                **{f"{name}_mb": round(memory(processes[name]), 1) for name in ("driver", "node")},
            })
            print(checkpoints[-1], flush=True)
    engine.wait([last])
    lose(last)
    began = time.perf_counter()
    right = bool((engine.get(last) == links).all())
    seconds = time.perf_counter() - began
    result = {
        "links": links, "checkpoints": checkpoints, "right": right, "rebuild_seconds": round(seconds, 3),
        "run_again": rebuilt(store),
    }
    del last
    engine.shutdown()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--links", type=int, default=100_000)
    parser.add_argument("--store-limit", type=int, default=20_000_000, help="bytes of records that are kept")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.links, arguments.store_limit)))


if __name__ == "__main__":
    main()
