"""Values on disk are lost like those in memory, and made again into whichever has room."""

import os
from pathlib import Path

import numpy as np
from waiting import start_engine

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.testing import lose

COUNT = 20
SIZE = 100_000


@engine.remote
def filled(number):
    return np.full(SIZE, number)


@engine.remote
def increased(array):
    return array + 1


def test_results_that_lie_on_disk_and_arguments_that_lay_there():
    start_engine(object_store_memory=8 << 20)
    try:
        refs = [increased.remote(filled.remote(number)) for number in range(COUNT)]
        engine.wait(refs, num_returns=COUNT)
        files = lose(refs)
        assert any("-d" in name for name in files)
        assert not set(os.listdir(Path(api.current_backend().session.shm))) & set(files)
        for number, ref in enumerate(refs):
            assert engine.get(ref)[0] == number + 1
        del refs, ref
    finally:
        engine.shutdown()
