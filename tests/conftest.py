"""For every test of the project: it must leave nothing behind."""

from collections.abc import Iterator

import pytest

from rlflow.engine.testing import leak_check


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a process, a descriptor or a session. Set up first, torn down last."""
    with leak_check():
        yield
