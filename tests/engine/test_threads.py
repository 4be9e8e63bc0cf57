"""How many threads libraries use in a worker."""

import ctypes
import os
from pathlib import Path

import numpy as np

from rlflow import engine

GETTERS = ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "openblas_get_num_threads")


def blas_threads():
    """Of the BLAS that NumPy has loaded; 0 where that is not OpenBLAS."""
    np.ones((2, 2)) @ np.ones((2, 2))
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "openblas" in line:
            library = ctypes.CDLL(line.split(maxsplit=5)[-1])
            for name in GETTERS:
                if hasattr(library, name):
                    return getattr(library, name)()
    return 0


def threads():
    return os.environ["OMP_NUM_THREADS"], blas_threads()


counted = engine.remote(threads)


def expected(count):
    return str(count), count if blas_threads() else 0


@engine.remote(num_cpus=2)
def parent():
    before = threads()
    child = engine.get(counted.remote())
    return before, child, threads()


@engine.remote(num_cpus=2)
class Counted:
    def threads(self):
        return threads()


def test_they_follow_the_cpus_of_the_task():
    engine.init(num_cpus=2)
    for cpus in (1, 2, 0.5, 2, 0):
        assert engine.get(counted.options(num_cpus=cpus).remote()) == expected(max(1, int(cpus)))
    assert engine.get(parent.remote()) == (expected(2), expected(1), expected(2))
    counter = Counted.remote()
    assert engine.get([counter.threads.remote() for _ in range(2)]) == [expected(2)] * 2
    engine.shutdown()


def test_a_runtime_env_overrules():
    engine.init(num_cpus=2)
    own = counted.options(num_cpus=2, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    assert engine.get(own.remote()) == expected(1)
    own = counted.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "2"}})
    assert engine.get(own.remote()) == expected(2)
    engine.shutdown()


def test_torch():
    @engine.remote
    def torch_threads():
        import torch

        return torch.get_num_threads()

    engine.init(num_cpus=2)
    counts = [engine.get(torch_threads.options(num_cpus=cpus).remote()) for cpus in (2, 1, 2)]
    assert counts == [2, 1, 2]
    engine.shutdown()
