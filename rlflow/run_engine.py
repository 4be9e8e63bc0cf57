"""An engine as a config's ``engine`` says, for as long as a run, a study or a look at a checkpoint takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rlflow import engine

from .config import EngineConfig


@contextmanager
def running_engine(
    settings: EngineConfig,
    backend: Literal["local", "inline"] | None = None,
    store: Path | None = None,
    preload: Sequence[str] = ("numpy",),
) -> Iterator[None]:
    """Starts an engine, and stops it at the end; none may run yet.

    Args:
        settings: of the config.
        backend: in place of the config's.
        store: the folder of the control store, which stays; by default it goes with the engine.
        preload: modules that workers have imported as they begin; those that do not exist are left out.
    """
    engine.init(
        backend=backend or settings.backend, num_cpus=settings.num_cpus,
        object_store_memory=settings.object_store_memory, store_limit=settings.store_limit, store=store,
        preload=tuple(module for module in preload if find_spec(module) is not None),
    )
    try:
        yield
    finally:
        engine.shutdown()
