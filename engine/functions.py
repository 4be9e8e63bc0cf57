"""Functions and classes on their way to workers: pickled once, named by the hash of their content.

Code of ``__main__`` (scripts, notebooks) always travels by value, because a worker's ``__main__`` is another
module. Everything importable travels by reference, as cloudpickle does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import cloudpickle

from .refs import capture_refs
from .serialization import explain_pickling_failure


@dataclass(frozen=True)
class Exported:
    """A pickled function or class."""

    id: bytes
    blob: bytes
    name: str


def export(target: Callable[..., Any]) -> Exported:
    """Pickles ``target``; raises SerializationError that names the captured variable that failed."""
    name = getattr(target, "__qualname__", repr(target))
    try:
        with capture_refs():
            blob = cloudpickle.dumps(target, protocol=5)
    except Exception as error:
        raise explain_pickling_failure(target, error, what=f"function or class {name}") from error
    return Exported(blake2b(blob, digest_size=16).digest(), blob, name)


def split_returns(result: Any, num_returns: int) -> list[Any]:
    """What a function returned, as its ``num_returns`` objects; raises ValueError when the numbers differ."""
    if num_returns == 1:
        return [result]
    if num_returns == 0:
        return []
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise ValueError(f"returned one {type(result).__qualname__} where num_returns={num_returns}")
    values = list(result)
    if len(values) != num_returns:
        raise ValueError(f"returned {len(values)} values where num_returns={num_returns}")
    return values


def load(blob: bytes) -> Callable[..., Any]:
    function: Callable[..., Any] = cloudpickle.loads(blob)
    return function
