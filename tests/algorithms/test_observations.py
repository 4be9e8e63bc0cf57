"""Observations of every space as rows: the same numbers that gymnasium's own flattening gives."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import concatenate, create_empty_array
from toy_envs import Spaces

from rlflow.algorithms.errors import UnsupportedSpaceError
from rlflow.algorithms.normalization import Moments, Normaliser
from rlflow.algorithms.observations import ObservationLayout


def batch(space, samples):
    return concatenate(space, samples, create_empty_array(space, len(samples)))


@pytest.mark.parametrize("name", Spaces.OBSERVATIONS)
def test_rows_are_what_gymnasium_flattens_to(name):
    space = Spaces.OBSERVATIONS[name]
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    layout = ObservationLayout(space)
    rows = layout.encode(batch(space, samples), 5)
    assert rows.shape == (5, layout.size) and rows.flags.c_contiguous
    assert layout.dtype is (np.uint8 if name in ("image", "image_first", "camera_and_bits") else np.float32)
    assert rows.dtype == layout.dtype
    for row, sample in zip(rows, samples, strict=True):
        np.testing.assert_array_equal(layout.encode(sample, 1)[0], row)
        if not layout.has_images:
            np.testing.assert_array_equal(row, flatten(space, sample).astype(np.float32))


def test_images_lie_with_their_channels_first():
    space = Spaces.OBSERVATIONS["camera_and_more"]
    layout = ObservationLayout(space)
    camera, speed = layout.parts
    assert (camera.name, camera.image, camera.size) == ("camera", (3, 12, 10), 360)
    assert (speed.name, speed.image, speed.start, speed.size) == ("speed", None, 360, 2)
    sample = space.sample()
    row = layout.encode(sample, 1)[0]
    np.testing.assert_array_equal(row[:360].reshape(3, 12, 10), np.moveaxis(sample["camera"], -1, 0))
    grey = ObservationLayout(spaces.Box(0, 255, (84, 84), np.uint8))
    assert grey.parts[0].image == (1, 84, 84)
    stacked = ObservationLayout(spaces.Box(0, 255, (4, 84, 84), np.uint8))
    assert stacked.parts[0].image == (4, 84, 84)


def test_a_mask_comes_last_and_is_no_feature():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3), "z": spaces.Box(-1, 1, (2,), np.float32)})
    layout = ObservationLayout(space)
    rows = layout.encode({"action_mask": np.array([[1, 0, 1]]), "z": np.array([[0.5, -0.5]])}, 1)
    assert rows.tolist() == [[0.5, -0.5, 1.0, 0.0, 1.0]]
    assert layout.features(rows).tolist() == [[0.5, -0.5]] and layout.masks(rows).tolist() == [[1.0, 0.0, 1.0]]
    rows[0, 2:] = 0
    with pytest.raises(ValueError, match="allows no action"):
        layout.masks(rows)


def test_masks_and_pixels_are_not_normalised():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(2), "z": spaces.Box(-1, 1, (1,), np.float32)})
    rows = np.array([[1.0, 1.0, 0.0], [3.0, 1.0, 1.0]], np.float32)
    normalised = Normaliser(Moments.of(rows), ObservationLayout(space))(rows)
    np.testing.assert_allclose(normalised, [[-1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], atol=1e-6)
    picture = spaces.Dict({"camera": spaces.Box(0, 255, (6, 6, 1), np.uint8), "z": spaces.Box(-1, 1, (1,), np.float32)})
    rows = np.full((2, 37), 200.0, np.float32)  # beside a number they are float32, and still from 0 to 255
    assert (Normaliser(Moments.of(rows), ObservationLayout(picture))(rows)[:, :36] == 200.0).all()
    with pytest.raises(UnsupportedSpaceError, match="normalize_observations"):
        Normaliser(Moments.none(360), ObservationLayout(Spaces.OBSERVATIONS["image"]))


@pytest.mark.parametrize("space", [
    spaces.Text(5), spaces.Sequence(spaces.Discrete(2)), spaces.Dict({"a": spaces.Text(3)}), spaces.Dict({}),
])
def test_what_has_no_fixed_size_is_refused(space):
    with pytest.raises(UnsupportedSpaceError, match="observation space"):
        ObservationLayout(space)
