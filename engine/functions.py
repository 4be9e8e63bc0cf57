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

SENT_REMEMBERED = 1000
"""The last functions that a process has sent to the node, and does not send again; the node knows a few more."""


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


class LoadedFunctions:
    """Functions and classes that a process has loaded, by id; bounded, and what was dropped can be loaded again.

    In a notebook a function is defined again and again under one name, each time with another id. Of one name only the
    few that were used last are kept: what the older ones captured is freed. More than one, since functions made by a
    factory share their name, too.
    """

    OF_ONE_NAME = 4
    IN_ALL = 1000

    def __init__(self) -> None:
        self._loaded: dict[bytes, Callable[..., Any]] = {}  # the last one in was loaded last
        self._ids: dict[str, list[bytes]] = {}
        self.get = self._loaded.get

    def add(self, function_id: bytes, name: str, function: Callable[..., Any]) -> None:
        self._loaded[function_id] = function
        same = self._ids.setdefault(name, [])
        same.append(function_id)
        if len(same) > self.OF_ONE_NAME:
            del self._loaded[same.pop(0)]
        elif len(self._loaded) > self.IN_ALL:
            oldest = next(iter(self._loaded))
            del self._loaded[oldest]
            for other, ids in self._ids.items():
                if oldest in ids:
                    ids.remove(oldest)
                    if not ids:
                        del self._ids[other]
                    break
