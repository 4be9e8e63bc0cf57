"""What ran where and when, as events of Chrome's tracing format (chrome://tracing, ui.perfetto.dev).

One complete event ("X") for the attempt of a task or call that counts, one instant event ("i") for each line of the
audit log. Times are microseconds of the wall clock.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .store_reader import StoreReader

MICROSECONDS = 1e6


def trace_events(reader: StoreReader, node: str) -> list[dict[str, Any]]:
    """Everything that has ended, and what happened to processes, by time."""
    found: list[dict[str, Any]] = []
    for task in reader.tasks():
        if task.started is None or task.duration is None:
            continue
        found.append({
            "ph": "X", "cat": task.kind, "name": task.function, "pid": node, "tid": task.worker,
            "ts": task.started * MICROSECONDS, "dur": task.duration * MICROSECONDS,
            "args": {
                "task_id": task.task_id, "attempts": task.attempts, "outcome": task.outcome, "error": task.error,
                "queued_s": max(0.0, task.started - task.submitted),
            },
        })
    for event in reader.events():
        found.append({
            "ph": "i", "cat": "engine", "name": f"{event.subject} {event.kind}", "pid": node, "tid": "engine", "s": "p",
            "ts": event.at * MICROSECONDS, "args": {"detail": event.detail},
        })
    found.sort(key=lambda event: float(event["ts"]))
    return found


def write(events: list[dict[str, Any]], filename: str | os.PathLike[str]) -> None:
    with open(filename, "w") as file:
        json.dump(events, file)
