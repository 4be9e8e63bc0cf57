"""How many threads BLAS, OpenMP and torch use in a worker: as many as its task was given CPUs.

They start with one, since the zygote may have none beside it (see ``supervisor.py``). A task of several CPUs then gets
as many threads, and the next one of one CPU has one again; what is not loaded yet reads environment variables when it
is. The libraries are found among the files that are mapped into this process, which takes a millisecond, and so it is
done only when the number changes. The number is the task's, also below one CPU: at least one thread.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..options import UNITS
from ..supervisor import ONE_THREAD as VARIABLES

SETTERS = {
    "openblas": (
        "scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
        "openblas_set_num_threads",
    ),
    "libmkl_rt": ("MKL_Set_Num_Threads",),
    "libgomp": ("omp_set_num_threads",),
    "libiomp": ("omp_set_num_threads",),
    "libomp": ("omp_set_num_threads",),
}
"""By a part of the library's name: functions that take the number, of which it has one."""


class Threads:
    """The number of threads of this process."""

    def __init__(self, environment: str) -> None:
        """``environment``: the worker's ``runtime_env``; numbers in it are obeyed."""
        self.units = UNITS
        """CPUs of the task that runs, in ``options.UNITS``."""
        self._count = 1
        chosen = json.loads(environment).get("env_vars", {}) if environment else {}
        self._chosen = not chosen.keys().isdisjoint(VARIABLES)
        if chosen.get("OMP_NUM_THREADS", "").isdigit():
            _tell_libraries(int(chosen["OMP_NUM_THREADS"]))

    def follow(self, units: int) -> None:
        """A task of so many CPUs begins, or goes on."""
        self.units = units
        count = max(1, units // UNITS)
        if count != self._count and not self._chosen:
            self._count = count
            os.environ.update(dict.fromkeys(VARIABLES, str(count)))
            _tell_libraries(count)


def _tell_libraries(count: int) -> None:
    for path, names in _loaded():
        library = ctypes.CDLL(path)
        for name in names:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(count))
                break
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


def _loaded() -> Iterator[tuple[str, tuple[str, ...]]]:
    paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    for path in sorted(paths):
        for part, names in SETTERS.items():
            if part in os.path.basename(path):
                yield path, names
