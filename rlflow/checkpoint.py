"""Training state on disk: arrays in ``arrays.safetensors``, everything else in ``manifest.json``. No pickle.

A state is a tree of dicts and lists whose leaves are NumPy arrays, numbers, text, booleans and ``None``. What
is anything else is refused by its path in the tree: a checkpoint that silently loses something is worse than
none. Arrays that share memory (tied weights) are stored once and come back as one array.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CheckpointError

SCHEMA_VERSION = 1
ARRAYS, MANIFEST = "arrays.safetensors", "manifest.json"

_ARRAY, _FLOAT = "$array", "$float"  # markers in the JSON tree; keys of a state may not start with "$"
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool",
    "float16",
    "float32",
    "float64",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back."""

    path: Path
    state: dict[str, Any]
    """The tree that was saved."""
    about: dict[str, Any]
    """What was said about it when it was saved: algorithm, env_steps, iteration, rlflow's version."""
    schema_version: int


def save_checkpoint(path: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes ``state`` to the folder ``path``, which appears complete or not at all.

    Raises:
        CheckpointError: the state holds something that cannot be saved; the message has its path.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    tree = _encode(state, "", arrays, {}, frozenset())
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "saved_at": time.time(),
        "about": dict(about),
        "state": tree,
    }

    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file(arrays, partial / ARRAYS)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for file in (partial / ARRAYS, partial / MANIFEST, partial):
            _sync(file)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint folder.

    Raises:
        CheckpointError: there is none, it is damaged, or a newer rlflow wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(path)
    manifest = read_manifest(folder)
    try:
        arrays = load_file(folder / ARRAYS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / ARRAYS} cannot be read: {error}") from error
    return Checkpoint(
        folder, _decode(manifest["state"], arrays, folder), manifest["about"], manifest["schema_version"]
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """``schema_version``, ``about``, and ``state`` with references to the arrays; quick, as it reads no arrays.

    Raises:
        CheckpointError: there is none, it is damaged, or a newer rlflow wrote it.
    """
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        manifest["state"], manifest["about"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {error!r}") from error
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint schema {version}; this rlflow reads up to {SCHEMA_VERSION}; update it"
        )
    return manifest


def rewrite_about(folder: Path, more: Mapping[str, Any]) -> None:
    """Adds to what was said about a checkpoint when it was saved; complete or not at all.

    Raises:
        CheckpointError: its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    manifest["about"].update(more)
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _sync(partial)
    partial.replace(folder / MANIFEST)
    _sync(folder)


def _encode(
    value: Any, path: str, arrays: dict[str, np.ndarray], stored: dict[Any, str], parents: frozenset[int]
) -> Any:
    """``value`` as JSON, its arrays moved into ``arrays`` under their paths."""
    if value is None or isinstance(value, (bool, int, str)):
        if isinstance(value, str) and not _is_utf8(value):
            raise CheckpointError(f"state at {path}: the text has lone surrogates and cannot be written as UTF-8")
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: str(float(value))}
    if isinstance(value, np.ndarray):
        return {_ARRAY: _store_array(value, path, arrays, stored)}
    if id(value) in parents:
        raise CheckpointError(f"state at {path or '/'} contains itself")
    inside = parents | {id(value)}
    if isinstance(value, list):
        return [_encode(item, f"{path}/{index}", arrays, stored, inside) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not key or "/" in key or key.startswith("$"):
                raise CheckpointError(f"state at {path or '/'}: key {key!r} is not text without '/' and a leading '$'")
        return {key: _encode(item, f"{path}/{key}", arrays, stored, inside) for key, item in value.items()}
    raise CheckpointError(f"state at {path or '/'}: {_named(value)} cannot be saved{_advice(value)}")


def _store_array(array: np.ndarray, path: str, arrays: dict[str, np.ndarray], stored: dict[Any, str]) -> str:
    if array.dtype.name not in _DTYPES or not array.dtype.isnative:
        raise CheckpointError(
            f"state at {path}: an array of {array.dtype} cannot be saved; convert it to a number type first"
        )
    identity = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
    if array.size and identity in stored:
        return stored[identity]
    name = path.lstrip("/")
    arrays[name] = np.array(array, order="C", copy=not array.flags.c_contiguous or None)
    stored[identity] = name
    return name


def _decode(tree: Any, arrays: Mapping[str, np.ndarray], folder: Path) -> Any:
    if isinstance(tree, list):
        return [_decode(item, arrays, folder) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _FLOAT in tree:
        return float(tree[_FLOAT])
    if _ARRAY in tree:
        try:
            return arrays[tree[_ARRAY]]
        except KeyError:
            raise CheckpointError(f"{folder / ARRAYS} is damaged: array {tree[_ARRAY]!r} is missing") from None
    return {key: _decode(item, arrays, folder) for key, item in tree.items()}


def _named(value: Any) -> str:
    kind = type(value)
    return f"a {kind.__qualname__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"


def _advice(value: Any) -> str:
    if isinstance(value, np.generic):
        return "; convert it with .item()"
    if isinstance(value, tuple):
        return "; make it a list"
    if type(value).__module__.startswith("torch"):
        return "; convert it with .detach().cpu().numpy()"
    return "; a state holds dicts, lists, NumPy arrays, numbers, text, booleans and None"


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
