"""Lost memory: objects are made again by running their tasks once more, or there is an error that says why not."""

import numpy as np
import pytest
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401

from rlflow import engine
from rlflow.engine.exceptions import ObjectLostError
from rlflow.engine.testing import lose

SIZE = 4000


def note(folder, name):
    """Leaves a line in a file for each time that it is called."""
    with open(folder / name, "a") as file:
        file.write("ran\n")


def noted(folder, name):
    path = folder / name
    return len(path.read_text().splitlines()) if path.exists() else 0


@engine.remote
def ones(folder):
    note(folder, "ones")
    return np.ones(SIZE)


@engine.remote
def double(array, folder):
    note(folder, "double")
    return 2 * array


@engine.remote
def total(array):
    return float(array.sum())


def made(ref):
    """Waits until the object is there, without looking into it."""
    engine.wait([ref])
    return ref


def test_a_result_is_made_again(tmp_path):
    ref = made(ones.remote(tmp_path))
    lose(ref)
    assert engine.get(ref).sum() == SIZE
    assert noted(tmp_path, "ones") == 2
    assert engine.get(total.remote(ref)) == SIZE
    assert noted(tmp_path, "ones") == 2


def test_a_task_waits_for_its_argument(tmp_path):
    ref = made(ones.remote(tmp_path))
    lose(ref)
    assert engine.get(total.remote(ref)) == SIZE


def test_what_it_was_made_from_and_has_been_freed_is_made_again(tmp_path):
    ref = double.remote(double.remote(ones.remote(tmp_path), tmp_path), tmp_path)
    lose(made(ref))
    assert engine.get(ref).sum() == 4 * SIZE
    assert (noted(tmp_path, "ones"), noted(tmp_path, "double")) == (2, 4)


def test_a_second_loss_and_the_last(tmp_path):
    ref = made(ones.options(max_retries=2).remote(tmp_path))
    for _ in range(2):
        lose(ref)
        assert engine.get(ref).sum() == SIZE
    lose(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*ones.*has run 3 times \(max_retries=2\)"):
        engine.get(ref)
    assert noted(tmp_path, "ones") == 3


def test_what_the_driver_put_cannot_be_made_again():
    ref = engine.put(np.ones(SIZE))
    lose(ref)
    with pytest.raises(ObjectLostError, match=rf"{ref.hex()}.*put by the driver"):
        engine.get(ref)
