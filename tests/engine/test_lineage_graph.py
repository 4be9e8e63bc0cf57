"""What made an object, from what: read from the store of a session that is over."""

from pathlib import Path

import pytest

from rlflow import engine
from rlflow.engine.lineage import Producer, find_id, lineage
from rlflow.engine.store_reader import StoreReader


@engine.remote
def source():
    return 1


@engine.remote
def add(a, b):
    return a + b


@engine.remote
def nested(refs):
    return engine.get(add.remote(engine.put(2), refs[0]))


@engine.remote
class Adder:
    def __init__(self, start):
        self.sum = start

    def add(self, n):
        self.sum += n
        return self.sum


def shape(producer: Producer) -> tuple[str, list]:
    """Names with what they were made from."""
    if producer.seen:
        return "as above", []
    name = producer.task.function if producer.task else f"put by {producer.put_by and producer.put_by.function}"
    return name, [shape(parent) for parent in producer.made_from]


@pytest.fixture(scope="module")
def ids_and_store(tmp_path_factory) -> tuple[dict[str, str], Path]:
    store = tmp_path_factory.mktemp("store")
    engine.init(num_cpus=2, store=store)
    try:
        one = source.remote()
        refs = {"diamond": add.remote(add.remote(one, 1), one), "nested": nested.remote([one]), "put": engine.put(3)}
        adder = Adder.remote(one)
        refs["call"] = adder.add.remote(refs["put"])
        engine.get(list(refs.values()))
        ids = {name: ref.hex() for name, ref in refs.items()}
    finally:
        engine.shutdown()
    return ids, store


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("diamond", ("add", [("add", [("as above", [])]), ("source", [])])),
        ("nested", ("nested", [("source", [])])),
        ("put", ("put by None", [])),
        ("call", ("Adder.add", [("Adder", [("source", [])]), ("put by None", [])])),
    ],
)
def test_what_made_it(ids_and_store, name, expected):
    ids, store = ids_and_store
    with StoreReader(store) as reader:
        (found,) = find_id(reader, ids[name])
        assert shape(lineage(reader, found)) == expected


def test_a_put_inside_a_task_names_the_task(ids_and_store):
    ids, store = ids_and_store
    with StoreReader(store) as reader:
        (inner,) = (task for task in reader.tasks() if task.function == "add" and task.task_id[:20] != ids["put"][:20])
        (found,) = find_id(reader, inner.task_id)
        put, shared = lineage(reader, found).made_from
        assert put.put_by is not None and put.put_by.function == "nested"
        assert shape(shared) == ("source", [])


def test_ids_are_found_by_their_ends(ids_and_store):
    ids, store = ids_and_store
    task = ids["diamond"][:28]
    with StoreReader(store) as reader:
        assert find_id(reader, f"{task[:6]}…{task[-6:]}") == [bytes.fromhex(task)]
        assert len(find_id(reader, task[:6])) > 1
        assert find_id(reader, "ff" * 14) == []
        for text in ("hello", f"{task[:6]}…"):
            with pytest.raises(ValueError, match="is no id"):
                find_id(reader, text)
