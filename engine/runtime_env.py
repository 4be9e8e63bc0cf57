"""``runtime_env``: the environment of the workers that run a task or an actor.

A dict as in Ray, with ``env_vars``, ``working_dir`` and ``py_modules``. It travels as text, in one normal form, so that
equal environments are equal strings: the scheduler compares them, the zygote's child applies them before it runs
anything. On one machine folders are used where they lie: nothing is copied, however large.

A task inherits the environment of whoever submits it. What it says itself comes on top: ``env_vars`` are merged by
name, the others replaced.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .exceptions import RuntimeEnvSetupError, UnsupportedError

KEYS = ("env_vars", "working_dir", "py_modules")


def normal_form(given: Any) -> str:
    """``given`` as text, with absolute paths; empty for an empty environment.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a path that does not exist or cannot be used; the message names it.
        UnsupportedError: a key of Ray's that this engine lacks.
    """
    if given is None:
        return ""
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env must be a dict, got {given!r}")
    for key in given:
        if key not in KEYS:
            raise UnsupportedError(f"runtime_env key {key!r} is not supported; known: {', '.join(KEYS)}")
    normal: dict[str, Any] = {}
    if given.get("env_vars"):
        normal["env_vars"] = _variables(given["env_vars"])
    if given.get("working_dir") is not None:
        normal["working_dir"] = str(_folder(given["working_dir"]))
    if given.get("py_modules"):
        normal["py_modules"] = _modules(given["py_modules"])
    return json.dumps(normal, sort_keys=True) if normal else ""


def merged(base: str, own: str) -> str:
    """The environment ``own`` on top of ``base``."""
    if not own or not base:
        return own or base
    below, above = json.loads(base), json.loads(own)
    variables = {**below.get("env_vars", {}), **above.get("env_vars", {})}
    both = {**below, **above, **({"env_vars": variables} if variables else {})}
    return json.dumps(both, sort_keys=True)


def apply(environment: str, path: list[str]) -> None:
    """Makes this process one of ``environment``; ``path`` is what its ``sys.path`` is without it.

    Raises RuntimeEnvSetupError when the working folder is gone.
    """
    wanted = json.loads(environment) if environment else {}
    os.environ.update(wanted.get("env_vars", {}))
    sys.path[:] = [str(Path(module).parent) for module in wanted.get("py_modules", [])] + path
    folder = wanted.get("working_dir")
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise RuntimeEnvSetupError(f"runtime_env['working_dir']: cannot use {folder}: {error.strerror}") from None
        sys.path.insert(0, folder)


def _variables(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of str to str, got {given!r}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env['env_vars'] must be a dict of str to str, got {name!r}: {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"runtime_env['env_vars']: {name!r}: {value!r} cannot be an environment variable")
    return dict(given)


def _folder(given: Any) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"runtime_env['working_dir'] must be a path, got {given!r}")
    folder = Path(given).absolute()
    if not folder.is_dir():
        raise ValueError(f"runtime_env['working_dir']: {folder} is not a folder (archives and URLs are not supported)")
    return folder


def _modules(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, (list, tuple)):
        raise TypeError(f"runtime_env['py_modules'] must be a list of paths or modules, got {given!r}")
    found = []
    for module in given:
        where = getattr(module, "__file__", None) if not isinstance(module, (str, os.PathLike)) else module
        if where is None:
            raise TypeError(f"runtime_env['py_modules'] must hold paths or modules, got {module!r}")
        path = Path(where).absolute()
        if path.name == "__init__.py":
            path = path.parent
        if not path.is_dir() and (path.suffix != ".py" or not path.is_file()):
            raise ValueError(f"runtime_env['py_modules']: {path} is neither a package's folder nor a .py file")
        found.append(str(path))
    return found
