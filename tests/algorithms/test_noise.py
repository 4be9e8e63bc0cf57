"""The noise table and sums over it: the same bits whoever adds which part."""

import numpy as np
import pytest

from rlflow import engine
from rlflow.algorithms.noise import AggregatorTree, centred_ranks, make_table

LENGTH = 50


@pytest.mark.usefixtures("inline_engine")
def test_a_sum_does_not_depend_on_the_number_of_aggregators():
    table = make_table(3, 10_000)
    rng = np.random.default_rng(0)
    count = 256 * 9 + 7  # more than one level of the tree
    starts = rng.integers(0, len(table) - LENGTH, count)
    weights = rng.normal(size=count).astype(np.float32)
    sums = []
    for size in (0, 1, 3):
        tree = AggregatorTree(engine.put(table), size)
        sums.append(tree.weighted_sum(starts, weights, LENGTH))
        tree.close()
    assert sums[0].tobytes() == sums[1].tobytes() == sums[2].tobytes()
    expected = sum(w * table[s:s + LENGTH].astype(np.float64) for s, w in zip(starts, weights, strict=True))
    np.testing.assert_allclose(sums[0], expected, rtol=1e-3, atol=1e-3)


def test_actors_add_only_what_is_more_than_one_group():
    assert AggregatorTree.size_for(slices=256, cpus=64) == 0
    assert AggregatorTree.size_for(slices=257, cpus=64) == 2
    assert AggregatorTree.size_for(slices=5000, cpus=64) == 20
    assert AggregatorTree.size_for(slices=5000, cpus=2) == 1


def test_the_table_is_a_function_of_the_seed():
    assert make_table(1, 1000).tobytes() == make_table(1, 1000).tobytes()
    assert make_table(1, 1000).tobytes() != make_table(2, 1000).tobytes()


def test_ranks_are_centred_and_equal_scores_share_theirs():
    ranks = centred_ranks(np.array([[10.0, -5.0], [300.0, 20.0]]))
    assert ranks.shape == (2, 2)
    np.testing.assert_allclose(ranks, [[-1 / 6, -0.5], [0.5, 1 / 6]], rtol=1e-6)
    shared = centred_ranks([1.0, 2.0, 2.0, 3.0])
    assert shared[1] == shared[2] == 0.0
    assert not centred_ranks([7.0, 7.0, 7.0]).any()
    assert centred_ranks([1e300, -np.inf, 0.0]).tolist() == [0.5, -0.5, 0.0]
