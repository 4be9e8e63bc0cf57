"""Reinforcement-learning algorithms on the engine's tasks and actors.

Importing this package is cheap: no algorithm, no torch and no environment is imported before :func:`resolve`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from .errors import RLError, UnknownAlgorithmError, did_you_mean

if TYPE_CHECKING:
    from .base import Algorithm

__all__ = ["ALGORITHMS", "RLError", "resolve"]

ALGORITHMS = {
    "a3c": "rlflow.algorithms.a3c:A3C", "es": "rlflow.algorithms.es:ES", "ppo": "rlflow.algorithms.ppo:PPO",
}
"""Names a config may use → where the class is."""


def resolve(name: str) -> type[Algorithm]:
    """The algorithm called ``name``: one of :data:`ALGORITHMS`, or ``"module:Class"`` of an importable one.

    Raises:
        UnknownAlgorithmError: there is no such name, module or class, or the class is no ``Algorithm``.
    """
    from .base import Algorithm

    path = ALGORITHMS.get(name.lower(), name)
    module_name, colon, class_name = path.partition(":")
    if not (colon and module_name and class_name):
        hint = did_you_mean(name, ALGORITHMS)
        known = ", ".join(ALGORITHMS)
        raise UnknownAlgorithmError(
            f"unknown algorithm {name!r}{hint} (known: {known}; or 'module:Class' of your own)"
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())  # `algorithm: my_module:MyPPO` is looked for beside the config
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there, something it imports is not
        raise UnknownAlgorithmError(
            f"algorithm {name!r}: there is no module {module_name!r} in {os.getcwd()} or on the Python path"
        ) from None
    found = getattr(module, class_name, None)
    if found is None:
        hint = did_you_mean(class_name, vars(module))
        raise UnknownAlgorithmError(f"algorithm {name!r}: module {module_name!r} has no {class_name!r}{hint}")
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise UnknownAlgorithmError(
            f"algorithm {name!r}: {class_name} is not a subclass of rlflow.algorithms.base.Algorithm"
        )
    return found
