"""Moments merged in parts are those of the whole; observations come out with zero mean and unit variance."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlflow.algorithms.normalization import CLIP, Moments, Normaliser

numbers = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=numbers), st.data())
def test_moments_of_parts_are_those_of_the_whole(observations, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(observations)), max_size=4)))
    parts = np.split(observations, cuts)
    merged = Moments.none(3).merged(Moments.of(part) for part in parts)
    wide = observations.astype(np.float64)
    assert merged.count == len(wide)
    np.testing.assert_allclose(merged.mean, wide.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.squares / len(wide), wide.var(axis=0), rtol=1e-6, atol=1e-6)


def test_what_was_measured_comes_out_with_zero_mean_and_unit_variance():
    observations = (np.random.default_rng(0).normal(5.0, [0.1, 10.0], (1000, 2))).astype(np.float32)
    normalised = Normaliser(Moments.of(observations))(observations)
    np.testing.assert_allclose(normalised.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, atol=1e-3)


def test_outliers_are_clipped_and_the_input_stays():
    observations = np.array([[1e9, -1e9]], np.float32)
    normalised = Normaliser(Moments.of(np.random.default_rng(0).normal(size=(100, 2))))(observations)
    assert normalised.tolist() == [[CLIP, -CLIP]]
    assert observations.tolist() == [[1e9, -1e9]]


def test_before_anything_was_seen_observations_pass_unchanged():
    for moments in (Moments.none(2), Moments.of(np.ones((1, 2), np.float32))):
        assert Normaliser(moments)(np.array([[3.0, -4.0]], np.float32)).tolist() == [[3.0, -4.0]]
