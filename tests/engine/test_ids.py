"""Ids: derived, of fixed length, and apart from each other."""

from hypothesis import given
from hypothesis import strategies as st

from rlflow.engine import ids

scopes = st.binary(min_size=ids.SCOPE_BYTES, max_size=ids.SCOPE_BYTES)
indices = st.integers(0, 2**32 - 1)
returns = st.integers(0, 60_000)


@given(scopes, indices, returns)
def test_parts_can_be_read_back(scope, index, return_index):
    task = ids.task_id(scope, index)
    assert len(task) == ids.TASK_BYTES and task.startswith(scope)
    object_id = ids.object_id(task, return_index)
    assert len(object_id) == ids.OBJECT_BYTES
    assert ids.task_of(object_id) == task
    assert ids.return_index(object_id) == return_index
    assert object_id != ids.handle_id(task)


@given(scopes, st.lists(indices, unique=True, max_size=20))
def test_tasks_of_one_scope_sort_by_index(scope, numbers):
    keys = [ids.task_id(scope, n) for n in sorted(numbers)]
    assert keys == sorted(keys)


@given(scopes, indices)
def test_a_parent_that_runs_again_names_the_same_children(scope, index):
    task = ids.task_id(scope, index)
    assert ids.child_scope(task) == ids.child_scope(task)
    assert len(ids.child_scope(task)) == ids.SCOPE_BYTES
    assert ids.child_scope(task) != scope


def test_drivers_have_scopes_of_their_own():
    assert len({ids.new_scope() for _ in range(100)}) == 100
