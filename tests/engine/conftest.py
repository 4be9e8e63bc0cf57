"""The engines that the semantic tests run on.

Tests with the fixture ``cluster`` find an engine that runs. The local one is shared by consecutive tests; each has
to leave it as it found it (see ``leak_check``), or it fails and the next one gets a fresh engine. Tests with just
``backend`` call ``engine.init`` themselves.
"""

from collections.abc import Generator, Iterator

import pytest
from shared import CPUS, SharedEngine

from rlflow import engine
from rlflow.engine.testing import leak_check

BACKENDS = ["inline", "local"]
FAILED = pytest.StashKey[bool]()
shared = SharedEngine()


class _Unchecked(Exception):
    """There is no point in asking whether the shared engine is in order: it is stopped now."""


@pytest.fixture(scope="module", params=BACKENDS)  # of the module: pytest runs the tests of one backend in a row then
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend; whatever engine the test starts is stopped after it."""
    name: str = request.param
    return name


@pytest.fixture
def cluster(backend: str) -> str:
    """A running engine with two CPUs; its backend's name."""
    if not shared.runs:
        engine.init(backend=backend, num_cpus=CPUS)
    return backend


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """As for all tests; and nothing may be left in the shared engine."""
    if not shared.is_wanted_by(request.node):
        with leak_check():
            yield
            if "backend" in request.fixturenames:
                engine.shutdown()
        return
    shared.start()
    try:
        with leak_check(running_engine=True):
            yield
            if not shared.runs or request.node.stash.get(FAILED, False):  # a traceback holds refs
                raise _Unchecked
    except _Unchecked:
        shared.stop()
    except AssertionError:
        shared.stop()
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of the capture of what is printed
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    try:
        yield
    finally:
        if shared.runs and not shared.is_wanted_by(nextitem):
            shared.stop()
