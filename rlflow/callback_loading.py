"""Callbacks that a config names: ``my_module:Mine``, or ``{my_module:Mine: {patience: 5}}`` with arguments."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from .callbacks import Callback
from .errors import InputError

Named = str | Mapping[str, Mapping[str, Any]]
"""As a config has it."""


def make_callbacks(named: Sequence[Named]) -> list[Callback]:
    """Instances, in order.

    Raises:
        InputError: one cannot be made.
    """
    made = []
    for each in named:
        found, arguments = find_callback(each)
        try:
            made.append(found(**arguments))
        except Exception as error:
            raise InputError(f"callback {_name(each)}: {type(error).__name__}: {error}") from error
    return made


def find_callback(named: Named) -> tuple[type[Callback], Mapping[str, Any]]:
    """The class and its arguments; nothing is made of it yet.

    Raises:
        InputError: there is no such module or class, it is no callback, or it does not take these arguments.
    """
    name = _name(named)
    arguments = {} if isinstance(named, str) else next(iter(named.values()))
    module_name, colon, class_name = name.partition(":")
    if not (colon and module_name and class_name):
        raise InputError(f"callback {name!r}: expected 'module:Class', such as rlflow.callbacks:EarlyStop")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for an algorithm of one's own
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise InputError(f"callback {name!r}: {error}") from None  # something that the module imports
        raise InputError(f"callback {name!r}: there is no module {module_name!r} here or on the Python path") from None
    except Exception as error:  # the module is the user's own and may raise whatever it likes
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
        raise InputError(f"callback {name!r}: importing failed: {type(error).__name__}: {error} ({where})") from None
    if not (isinstance(found, type) and issubclass(found, Callback)):
        what = f"has no {class_name!r}" if found is None else f"has {class_name}, which is no rlflow.callbacks.Callback"
        raise InputError(f"callback {name!r}: module {module_name!r} {what}")
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise InputError(f"callback {name!r}: {error}; it is {class_name}{inspect.signature(found)}") from None
    return found, arguments


def _name(named: Named) -> str:
    return named if isinstance(named, str) else next(iter(named))
