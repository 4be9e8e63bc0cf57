"""What is saved comes back as it was; what cannot be saved is refused by its path; half a checkpoint never shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlflow.checkpoint import ARRAYS, MANIFEST, load_checkpoint, save_checkpoint
from rlflow.errors import CheckpointError

DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()  # of any size: a generator's state has 128 bits
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | hnp.arrays(DTYPES.map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="/$"), min_size=1, max_size=6)
STATES = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
)


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return bool(left == right)


@given(STATES)
@settings(max_examples=60, deadline=None)
def test_any_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "step_1"
    save_checkpoint(path, state, {"iteration": 1})
    loaded = load_checkpoint(path)
    assert same(loaded.state, state)
    assert loaded.about == {"iteration": 1}


def test_views_and_other_memory_orders_come_back(tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    state = {"transposed": whole.T, "strided": whole[::2, 1::2], "fortran": np.asfortranarray(whole)}
    save_checkpoint(tmp_path / "step_1", state, {})
    loaded = load_checkpoint(tmp_path / "step_1").state
    for key, array in state.items():
        np.testing.assert_array_equal(loaded[key], array)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    weights = np.ones(1000)
    save_checkpoint(tmp_path / "step_1", {"policy": weights, "value": weights, "own": np.ones(1000)}, {})
    loaded = load_checkpoint(tmp_path / "step_1").state
    assert loaded["policy"] is loaded["value"]
    assert loaded["own"] is not loaded["policy"]
    assert (tmp_path / "step_1" / ARRAYS).stat().st_size < 3 * weights.nbytes


class Strange:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Strange(), r"state at /learner/rng: a .*Strange cannot be saved"),
        ((1, 2), r"state at /learner/rng: a tuple cannot be saved; make it a list"),
        (b"x", r"state at /learner/rng: a bytes cannot be saved"),
        ({1, 2}, r"state at /learner/rng: a set cannot be saved"),
        (np.int64(3), r"state at /learner/rng: a numpy.int64 cannot be saved; convert it with .item\(\)"),
        (np.array(["a"]), r"state at /learner/rng: an array of <U1 cannot be saved"),
        (np.array([None]), r"state at /learner/rng: an array of object cannot be saved"),
        (np.zeros(2, dtype=">f4"), r"state at /learner/rng: an array of >f4 cannot be saved"),
        ({"a/b": 1}, r"state at /learner/rng: key 'a/b'"),
        ({"$array": "x"}, r"state at /learner/rng: key '\$array'"),
        ({3: 1}, r"state at /learner/rng: key 3"),
        (["\ud800"], r"state at /learner/rng/0: the text has lone surrogates"),
    ],
)
def test_what_cannot_be_saved_is_refused_by_its_path(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "step_1", {"learner": {"weights": np.zeros(3), "rng": value}}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_contains_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {"a": []}
    state["a"].append(state["a"])
    with pytest.raises(CheckpointError, match="state at /a/0 contains itself"):
        save_checkpoint(tmp_path / "step_1", state, {})


def test_a_torch_tensor_gets_advice(tmp_path: Path) -> None:
    import torch

    with pytest.raises(CheckpointError, match=r"/w: a torch.Tensor cannot be saved; .*\.numpy\(\)"):
        save_checkpoint(tmp_path / "step_1", {"w": torch.zeros(2)}, {})


def test_a_failed_save_leaves_the_older_checkpoint_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step_1", {"a": 1}, {})
    with pytest.raises(CheckpointError):
        save_checkpoint(tmp_path / "step_1", {"a": object()}, {})
    assert load_checkpoint(tmp_path / "step_1").state == {"a": 1}
    save_checkpoint(tmp_path / "step_1", {"a": 2}, {})
    assert load_checkpoint(tmp_path / "step_1").state == {"a": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_1"]


def test_damaged_and_newer_checkpoints_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "step_1"
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, {"a": np.zeros(4)}, {})

    arrays = (path / ARRAYS).read_bytes()
    (path / ARRAYS).write_bytes(arrays[:-8])
    with pytest.raises(CheckpointError, match=r"arrays\.safetensors cannot be read"):
        load_checkpoint(path)
    (path / ARRAYS).write_bytes(arrays)

    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        load_checkpoint(path)
    (path / MANIFEST).write_text(json.dumps({**manifest, "state": {"a": {"$array": "gone"}}}))
    with pytest.raises(CheckpointError, match="array 'gone' is missing"):
        load_checkpoint(path)
    (path / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        load_checkpoint(path)
