"""Arrays: equal bits, read-only, isolated, whatever their size and layout."""

import numpy as np
import pytest

from rlflow import engine

pytestmark = pytest.mark.usefixtures("cluster")

RECORD = np.dtype([("id", "<i4"), ("position", "<f8", (3,)), ("name", "U5")])


def layouts():
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    record = np.zeros(3, RECORD)
    record["id"] = [1, 2, 3]
    record["name"] = ["a", "bc", "ünt"]
    return {
        "one element": np.array([1.0]),
        "zero-dimensional": np.array(5.0),
        "empty": np.empty(0),
        "empty in one axis": np.empty((3, 0, 2), np.int16),
        "C order": base,
        "Fortran order": np.asfortranarray(base),
        "transposed": base.T,
        "strided": base[::2, ::3],
        "reversed": base[::-1],
        "broadcast": np.broadcast_to(np.arange(3.0), (4, 3)),
        "big-endian": base.astype(">f8"),
        "float16": base.astype(np.float16),
        "complex": base * 1j,
        "bool": base > 5,
        "int8": base.astype(np.int8),
        "text": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "datetime": np.array(["2020-01-01", "2021-02-03"], "M8[D]"),
        "timedelta": np.array([1, 2], "m8[s]"),
        "structured": record,
        "one field of a structured one": record["position"],
        "recarray": record.view(np.recarray),
        "masked": np.ma.masked_array([1, 2, 3], [0, 1, 0]),
        "objects": np.array([1, "two", None, [3]], dtype=object),
        "scalar float32": np.float32(1.5),
        "scalar int64": np.int64(-3),
        "matrix of 200 kB": np.arange(25_000, dtype=np.float64).reshape(50, 500),
    }


@engine.remote
def identity(value):
    return value


@engine.remote
def total(array):
    return float(np.asarray(array, np.float64).sum())


@pytest.mark.parametrize("name", layouts())
def test_every_layout(name):
    array = layouts()[name]
    for back in (engine.get(identity.remote(array)), engine.get(engine.put(array))):
        assert type(back) is type(array)
        assert back.dtype == array.dtype and back.shape == array.shape
        np.testing.assert_array_equal(back, array)
    [nested] = engine.get(identity.remote({"key": [array]}))["key"]
    np.testing.assert_array_equal(nested, array)


@pytest.mark.parametrize("megabytes", [1, 10])
def test_large_arrays(megabytes):
    array = np.random.default_rng(0).standard_normal(megabytes * 2**20 // 8)
    ref = engine.put(array)
    assert engine.get(total.remote(ref)) == array.sum()
    assert engine.get(total.remote(array)) == array.sum()
    np.testing.assert_array_equal(engine.get(ref), array)
    np.testing.assert_array_equal(engine.get(identity.remote(ref)), array)


@pytest.mark.parametrize("size", [10, 200_000])
def test_results_are_read_only(size):
    @engine.remote
    def make():
        return np.zeros(size)

    for ref in (make.remote(), engine.put(np.zeros(size))):
        array = engine.get(ref)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        copy = array.copy()
        copy[0] = 1
        assert engine.get(ref)[0] == 0


@pytest.mark.parametrize("size", [10, 200_000])
def test_arguments_are_read_only(size):
    @engine.remote
    def write(array):
        array[0] = 1

    mine = np.zeros(size)
    for argument in (mine, engine.put(mine)):
        with pytest.raises(ValueError, match="read-only"):
            engine.get(write.remote(argument))
    assert mine[0] == 0


@pytest.mark.parametrize("size", [10, 200_000])
def test_put_takes_a_copy(size):
    mine = np.zeros(size)
    ref, argument = engine.put(mine), identity.remote(mine)
    mine[:] = 7
    assert engine.get(ref).max() == 0
    assert engine.get(argument).max() == 0


def test_several_arrays_in_one_value():
    batch = {
        "observations": np.random.default_rng(1).random((64, 1000)),
        "actions": np.arange(64),
        "mask": np.ones((64, 3), bool),
        "weights": [np.full((300, 300), i, np.float32) for i in range(4)],
        "none": np.empty((0, 4)),
        "label": "batch",
    }
    back = engine.get(identity.remote(batch))
    assert list(back) == list(batch) and back["label"] == "batch"
    for key in ("observations", "actions", "mask", "none"):
        np.testing.assert_array_equal(back[key], batch[key])
    for mine, theirs in zip(batch["weights"], back["weights"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_one_array_twice_in_a_value_stays_one():
    array = np.zeros(100_000)
    first, second = engine.get(engine.put([array, array]))
    assert first is second


def test_values_outlive_their_refs():
    ref = engine.put(np.full(500_000, 3.0))
    array = engine.get(ref)
    view = array[10:20]
    del ref, array
    # These would take its memory, if it were free.
    others = [engine.get(engine.put(np.zeros(500_000))) for _ in range(5)]
    assert view.tolist() == [3.0] * 10
    assert all(other.max() == 0 for other in others)


def test_large_bytes_text_and_bytearrays():
    for value in (b"x" * 3_000_000, "y" * 3_000_000, bytearray(3_000_000)):
        assert engine.get(identity.remote(value)) == value
        assert engine.get(engine.put(value)) == value


def test_arrays_of_several_returns():
    @engine.remote(num_returns=3)
    def parts():
        return np.zeros(200_000), np.ones(3), np.full(200_000, 2.0)

    assert [float(a.mean()) for a in engine.get(parts.remote())] == [0, 1, 2]


def test_many_arrays_in_turn():
    """More than any buffer of fixed size would hold, and freed as it goes."""
    array = np.zeros(2**17)
    for i in range(60):
        ref = total.remote(engine.put(array + i))
        assert engine.get(ref) == i * array.size


def test_a_large_result_of_a_nested_task():
    @engine.remote
    def outer():
        return engine.get(identity.remote(np.arange(300_000)))

    assert engine.get(outer.remote()).sum() == np.arange(300_000).sum()


def test_many_arrays_of_an_actor():
    """Dropped at once, before the node has heard of them."""

    @engine.remote
    class Maker:
        def array(self, i):
            return np.full(30_000, i)

    maker = Maker.remote()
    for i in range(50):
        assert engine.get(maker.array.remote(i))[-1] == i
    arrays = engine.get([maker.array.remote(i) for i in range(50)])
    del maker
    assert [array[0] for array in arrays] == list(range(50))
