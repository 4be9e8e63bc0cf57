"""What tasks of the inline engine find around them: environment variables and GPUs, in one process.

Variables of a ``runtime_env`` are set while the task runs. Its folders cannot be had: modules that were imported from
one of them would stay, for the program and for every other task. GPUs are given out by number only, since CUDA reads
``CUDA_VISIBLE_DEVICES`` once in a process; a task inside another one that holds them all gets the first ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..exceptions import UnsupportedError
from ..node.accelerators import Gpus, Share
from ..options import UNITS


def refuse_folders(environment: str) -> None:
    """Raises UnsupportedError for what a process can have only from its start."""
    for key in json.loads(environment) if environment else ():
        if key != "env_vars":
            raise UnsupportedError(
                f"runtime_env[{key!r}] is not supported by backend='inline', which runs tasks in this process: leave "
                f"it out and set sys.path and the working folder of the program, or use backend='local'"
            )


@contextmanager
def variables_set(environment: str) -> Iterator[None]:
    """The ``env_vars`` of an environment, for a while."""
    if not environment:
        yield
        return
    wanted = json.loads(environment).get("env_vars", {})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class InlineGpus:
    """The devices of the inline engine, by name."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._gpus = Gpus(len(names) * UNITS)

    def lend(self, amount: int) -> tuple[tuple[str, ...], Share]:
        """Names for a task or actor, and what to give back."""
        if not amount:
            return (), {}
        if not self._gpus.fits(amount):
            return tuple(self._names[: max(1, amount // UNITS)]), {}
        share = self._gpus.take(amount)
        return tuple(self._names[device] for device in share), share

    def take_back(self, share: Share) -> None:
        self._gpus.give_back(share)
