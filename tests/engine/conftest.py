"""The engines that the semantic tests run on."""

from collections.abc import Iterator

import pytest

from rlflow import engine

BACKENDS = ["inline", "local"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a backend; whatever engine the test started is stopped after it."""
    yield request.param
    engine.shutdown()


@pytest.fixture
def cluster(backend: str) -> str:
    """A running engine with two CPUs; its backend's name."""
    engine.init(backend=backend, num_cpus=2)
    return backend
