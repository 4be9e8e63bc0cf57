"""The engine these tests run on: inline, so that a failure is a plain traceback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlflow import engine


@pytest.fixture
def inline_engine() -> Iterator[None]:
    engine.init(backend="inline")
    yield
    engine.shutdown()
