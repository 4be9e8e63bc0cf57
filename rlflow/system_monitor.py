"""``system.jsonl``: where a run's time goes and how much memory it has, every few seconds.

The times are those that an algorithm reports (``time_*`` in its metrics), added up since the line before; ``other`` is
what they leave of the wall clock: checkpoints, evaluations, callbacks.
"""

from __future__ import annotations

import time
from typing import Any

import psutil

from .callbacks import Callback, RunStart
from .run_folder import RunFolder

SECONDS = 5.0
"""Between lines."""


class SystemMonitor(Callback):
    """Writes the file; its lines begin with ``env_steps``, as those of metrics do."""

    def __init__(self) -> None:
        self._folder: RunFolder | None = None
        self._spent: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self._written = time.monotonic()

    def on_start(self, start: RunStart) -> None:
        self._folder = start.folder
        self._driver = psutil.Process()
        self._driver.cpu_percent()  # the first call only starts the measurement
        self._written = time.monotonic()

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self._metrics = metrics
        for name, value in metrics.items():
            if name.startswith("time_") and name != "time_total":
                key = name.removeprefix("time_")
                self._spent[key] = self._spent.get(key, 0.0) + value
        if time.monotonic() - self._written >= SECONDS:
            self._write()

    def on_end(self, folder: RunFolder) -> None:
        if self._metrics:  # also of a run that was too short for a line
            self._write()

    def _write(self) -> None:
        assert self._folder is not None
        now = time.monotonic()
        wall = now - self._written
        accounted = sum(value for name, value in self._spent.items() if name in ("rollout", "learn"))
        line = {
            "env_steps": int(self._metrics["env_steps"]),
            "time_total": self._metrics.get("time_total"),
            "seconds": {"wall": wall, **self._spent, "other": max(wall - accounted, 0.0)},
            **self._memory(),
        }
        self._folder.append_system(line)
        self._written, self._spent = now, {}

    def _memory(self) -> dict[str, Any]:
        sizes = []
        for child in self._driver.children(recursive=True):
            try:
                sizes.append(child.memory_info().rss)
            except psutil.NoSuchProcess:
                continue  # it has just ended
        return {
            "memory": {
                "driver": self._driver.memory_info().rss, "engine": sum(sizes), "largest": max(sizes, default=0),
                "available": psutil.virtual_memory().available,
            },
            "processes": 1 + len(sizes),
            "driver_cpu_percent": self._driver.cpu_percent(),
        }  # fmt: skip
