"""Fixtures of test files that share one engine a file, whose workers come and go: import all three."""

import pytest
from waiting import start_engine

from rlflow import engine
from rlflow.engine.testing import leak_check


@pytest.fixture(scope="module", autouse=True)
def no_leaks():
    """One check for all tests of the file, since they share an engine."""
    with leak_check():
        yield


@pytest.fixture(scope="module", autouse=True)
def shared_engine(no_leaks):
    start_engine()
    yield
    engine.shutdown()


@pytest.fixture(autouse=True)
def nothing_kept():
    """After every test the engine has all its resources again, and no object, task or actor is alive."""
    with leak_check(running_engine=True):
        yield


__all__ = ["no_leaks", "nothing_kept", "shared_engine"]
