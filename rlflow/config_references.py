"""``${key}`` in a config: the value of another key of it, so that a number is written once.

    minibatch_size: ${rollout_length}
    name: ${algorithm}_${env}_${stop.env_steps}

They are looked up after overrides, which therefore reach whatever refers to the key. A value that is one reference and
nothing else takes the other's type; inside of text it is put in as text. ``$${`` stands for ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .config_source import ConfigSource, KeyPath, dotted

_REFERENCE = re.compile(r"(?<!\$)\$\{\s*([^}]*?)\s*\}")


class _Unknown(Exception):
    """A reference that leads nowhere; the message says why."""


def resolve_references(source: ConfigSource) -> None:
    """Puts in the values that are referred to; mistakes go to ``source.problems``."""
    for path, text in list(_texts(source.values, ())):
        if "${" not in text:
            continue
        try:
            value = _resolved(source.values, text, (dotted(path),))
        except _Unknown as error:
            source.add_problem(path, f"{dotted(path)}: {error}")
            continue
        _set(source.values, path, value)


def _resolved(values: Mapping[str, Any], text: str, seen: tuple[str, ...]) -> Any:
    whole = _REFERENCE.fullmatch(text.strip())
    if whole:
        return _value_of(values, whole[1], seen)
    filled = _REFERENCE.sub(lambda match: _as_text(_value_of(values, match[1], seen), match[1]), text)
    return filled.replace("$${", "${")


def _value_of(values: Mapping[str, Any], name: str, seen: tuple[str, ...]) -> Any:
    from .config_check import did_you_mean

    if name in seen:
        raise _Unknown(f"${{{name}}} refers to itself: {' → '.join((*seen, name))}")
    found: Any = values
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            known = [known for known in _names(values, "") if known not in seen]
            raise _Unknown(
                f"there is no {name!r} in this config for ${{{name}}}{did_you_mean(name, known)}; "
                "a key that is referred to must be written"
            )
        found = found[key]
    return _resolved(values, found, (*seen, name)) if isinstance(found, str) else found


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, Mapping | list):
        raise _Unknown(f"${{{name}}} is a list or a mapping, which cannot be put into text")
    return str(value)


def _names(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")


def _texts(node: Any, path: KeyPath, parents: frozenset[int] = frozenset()) -> Iterator[tuple[KeyPath, str]]:
    if id(node) in parents:  # it contains itself, which has been reported
        return
    inside = parents | {id(node)}
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, (*path, key), inside)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, (*path, index), inside)


def _set(values: Any, path: KeyPath, value: Any) -> None:
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value
