"""Reads a YAML file and overrides into one mapping that remembers where each of its values came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """``("stop", "env_steps")`` as ``"stop.env_steps"``."""
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands and what to do about it."""

    where: str
    what: str
    order: tuple[int, int, int] = (0, 0, 0)
    """Sorts a report: the file as a whole, then its lines, then the overrides as they were given."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(InputError, ValueError):
    """Everything that is wrong with a config, at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.order)
        count = len(self.problems)
        title = "1 problem in the config:" if count == 1 else f"{count} problems in the config:"
        super().__init__("\n".join([title, *(f"  {problem}" for problem in self.problems)]))


@dataclass(frozen=True)
class Origin:
    """Where a value came from: a place in the file, an override, or an argument of a Python call."""

    label: str
    order: tuple[int, int, int]


@dataclass
class ConfigSource:
    """A mapping as it was written, the origin of every key in it, and what was wrong with the writing."""

    label: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def written_part(self, path: KeyPath) -> KeyPath:
        """The longest prefix of ``path`` that was written somewhere; ``()`` when nothing of it was."""
        while path and path not in self.origins:
            path = path[:-1]
        return path

    def add_problem(self, path: KeyPath, what: str) -> None:
        """Records a problem at the place where ``path``, or the nearest part of it, was written."""
        origin = self.origins.get(self.written_part(path), Origin(self.label, (0, 0, 0)))
        self.problems.append(Problem(origin.label, what, origin.order))

    def rename(self, short: str, full: str) -> None:
        """Spells out a shorthand key, so that everything after this sees the full name only."""
        if full in self.values:
            given = {name: self.origins[(name,)].order[0] for name in (short, full)}
            if given[short] == given[full]:
                self.add_problem((short,), f"{short} is short for {full}, which is given too; keep one of them")
            beaten = full if given[short] > given[full] else short  # what is set on the command line wins
            del self.values[beaten]
            self.origins = {path: origin for path, origin in self.origins.items() if path[0] != beaten}
            if beaten == short:
                return
        self.values[full] = self.values.pop(short)
        self.origins = {
            (full, *path[1:]) if path[0] == short else path: origin for path, origin in self.origins.items()
        }

    def override(self, path: KeyPath, value: Any, origin: Origin) -> None:
        """Sets one value, making the mappings on the way to it."""
        target: Any = self.values
        for depth, key in enumerate(path[:-1], start=1):
            inner = target.get(key)
            if inner is None:
                inner = target[key] = {}
                self.origins.setdefault(path[:depth], origin)
            if not isinstance(inner, dict):
                what = f"{dotted(path[:depth])} is {shown(inner)}, which has no key {path[depth]!r} to set"
                self.problems.append(Problem(origin.label, what, origin.order))
                return
            target = inner
        target[path[-1]] = value
        self.origins = {known: place for known, place in self.origins.items() if known[: len(path)] != path}
        self.origins[path] = origin


def shown(value: Any) -> str:
    """A value as the person who wrote YAML knows it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "an empty mapping" if not value else "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_config_file(path: Path) -> ConfigSource:
    """Reads a YAML mapping with the line and column of every key.

    Raises:
        ConfigError: the file is missing, is no file, is no UTF-8, is no YAML, or holds no mapping. Duplicate
            and misshapen keys are recorded in the result's ``problems``, to be reported with the rest.
    """
    source = ConfigSource(str(path))
    node, value = _parse(_read_text(path), str(path))
    if node is None:
        what = "the file is empty; a config is a YAML mapping such as 'algorithm: ppo'"
        raise ConfigError([Problem(str(path), what)])
    if not isinstance(node, yaml.MappingNode):
        got = "a list" if isinstance(node, yaml.SequenceNode) else shown(value)
        raise ConfigError([Problem(_place(str(path), node), f"expected a mapping of keys to values, got {got}")])
    _record_origins(source, node, (), str(path), frozenset())
    source.values = {key: item for key, item in value.items() if isinstance(key, str)}
    return source


def apply_overrides(source: ConfigSource, overrides: Iterable[str]) -> None:
    """Applies ``key=value`` strings: dotted keys, YAML values. Mistakes go to ``source.problems``."""
    for index, text in enumerate(overrides):
        origin = Origin(f"override {text!r}", (1, index, 0))
        key, equals, written = text.partition("=")
        path: KeyPath = tuple(key.strip().split("."))
        if not equals or not all(path):
            what = "expected key=value, such as stop.env_steps=50000"
            source.problems.append(Problem(origin.label, what, origin.order))
            continue
        try:
            _, value = _parse(written, origin.label)
        except ConfigError as error:
            what = f"{error.problems[0].what}; quote it, as in {key}='\"...\"'"
            source.problems.append(Problem(origin.label, what, origin.order))
            continue
        source.override(path, value, origin)


def parse_value(text: str) -> Any:
    """What ``text`` would be as a value in a config: ``3e-4`` a number, ``[8, 8]`` a list.

    Raises:
        ConfigError: it is no YAML.
    """
    return _parse(text, text)[1]


def source_of_arguments(arguments: Mapping[str, Any]) -> ConfigSource:
    """The keyword arguments of a Python call as a source; problems then name the argument."""
    source = ConfigSource("rlflow.train()")
    apply_arguments(source, arguments)
    return source


def apply_arguments(source: ConfigSource, arguments: Mapping[str, Any]) -> None:
    """Sets what keyword arguments of a Python call say; of a mapping only the keys that are in it."""
    for index, (key, value) in enumerate(arguments.items()):
        origin = Origin(f"argument {key}", (1, index, 0))
        if isinstance(value, Mapping) and isinstance(source.values.get(key), dict):
            for inner, part in value.items():
                source.override((key, inner), part, origin)
        else:
            source.override((key,), dict(value) if isinstance(value, Mapping) else value, origin)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars: ``3e-4`` is a number, ``no`` and ``1:30`` are text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way: resolvers are kept on the class


for _tag, _pattern, _first_characters in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("merge", r"^<<$", ["<"]),
    ("int", r"^(?:[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first_characters)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 16) if text.lower().startswith("0x") else int(text, 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(other) for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; {path.parent} has {', '.join(near[:5])}" if near else ""
        raise ConfigError([Problem(str(path), f"there is no such file{hint}")]) from None
    except IsADirectoryError:
        raise ConfigError([Problem(str(path), "this is a folder; give the YAML file in it")]) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start}); is this a YAML file?"
        raise ConfigError([Problem(str(path), what)]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror}")]) from None


_YAML_HINTS = {
    "mapping values are not allowed here": "; check the indentation of this line, and quote text that has ': ' in it",
    "cannot start any token": "; indent with spaces, and quote text that begins with a special character",
}
"""What people mostly did when the parser says so."""


def _parse(text: str, label: str) -> tuple[yaml.Node | None, Any]:
    """The node tree, which has the line numbers, and the value it stands for."""
    loader = None
    try:
        loader = _Loader(text)  # checks for characters that YAML forbids
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
        what = ", ".join(part for part in (error.context, error.problem) if part)
        what += next((hint for phrase, hint in _YAML_HINTS.items() if phrase in what), "")
        raise ConfigError([Problem(where, f"not valid YAML: {what}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError([Problem(label, f"not valid YAML: {reason}")]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _place(label: str, node: yaml.Node) -> str:
    return f"{label}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _record_origins(
    source: ConfigSource, node: yaml.Node, path: KeyPath, label: str, ancestors: frozenset[int]
) -> None:
    if id(node) in ancestors:  # an alias inside its own anchor
        source.add_problem(path, f"{dotted(path)} contains itself")
        return
    ancestors |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            source.origins[(*path, index)] = _origin(label, item)
            _record_origins(source, item, (*path, index), label, ancestors)
    if not isinstance(node, yaml.MappingNode):
        return
    first_lines: dict[str, int] = {}
    for key, value in node.value:
        # construct_document() has spliced merged keys ("<<") into node.value, before the mapping's own.
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            what = f"keys are text, got {getattr(key, 'value', key)!s}; quote it if it is meant"
            source.problems.append(Problem(_place(label, key), what, _origin(label, key).order))
            continue
        here = (*path, key.value)
        line = key.start_mark.line + 1
        inside = node.start_mark.index <= key.start_mark.index < node.end_mark.index
        if inside and key.value in first_lines:
            what = f"{dotted(here)} is given twice; the first is on line {first_lines[key.value]}"
            source.problems.append(Problem(_place(label, key), what, _origin(label, key).order))
        if inside:
            first_lines[key.value] = line
        source.origins = {known: at for known, at in source.origins.items() if known[: len(here)] != here}
        source.origins[here] = _origin(label, key)
        _record_origins(source, value, here, label, ancestors)


def _origin(label: str, node: yaml.Node) -> Origin:
    return Origin(_place(label, node), (0, node.start_mark.line + 1, node.start_mark.column + 1))
