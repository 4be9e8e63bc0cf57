"""``docs/config.md``: every key of a config with its type, default and meaning, made from the models that check it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .config import RunConfig
from .config_check import SHORTHANDS
from .tuning import TuneConfig

_OPENING = """\
# Config reference

Made by `rlflow schema --markdown` from the classes that check configs; do not edit it by hand.

A config is one YAML file. The keys of the run and those of the algorithm stand side by side; each of them can be set on
the command line, dots reach inside: `rlflow train CONFIG learning_rate=1e-3 stop.env_steps=50000`. Unknown keys are
errors. `rlflow train CONFIG --dry-run` prints a config with all its defaults.

For completion and checks while you type, write the schema beside your configs and name it in their first line:

```bash
rlflow schema --out config.schema.json
```

```yaml
# yaml-language-server: $schema=config.schema.json
```

A **schedule** is a number, or `linear(start, end)`, which goes from start to end over the run's env steps.

`${key}` stands for the value of another key of the config, overrides included: `minibatch_size: ${rollout_length}`,
`name: ${algorithm}_${env}`. `$${` is a plain `${`.

**Several runs** in one file share what is in `default`; their own keys win, of mappings such as `stop` only those that
they have. `rlflow train` makes them one after the other, `--only NAME` some of them.

```yaml
# several.yaml
default:
  algorithm: ppo
  env: CartPole-v1
  stop: {env_steps: 2000}
runs:
  slow: {learning_rate: 1e-4}
  fast: {learning_rate: 1e-2, stop: {env_steps: 1000}}
```

```bash
rlflow train several.yaml --only fast evaluation.episodes=2
```

The **search space** of `rlflow tune` is a block `tune` beside the config's other keys:

```yaml
# search.yaml
algorithm: ppo
env: CartPole-v1
stop: {env_steps: 500}
evaluation: {episodes: 2}
tune:
  trials: 2
  space:
    learning_rate: loguniform(1e-4, 1e-2)
    epochs: int(1, 20)
    rollout_length: [32, 64]
```

```bash
rlflow tune search.yaml engine.backend=inline
```
"""


def config_reference() -> str:
    """The page, as Markdown."""
    from rlflow.algorithms import ALGORITHMS, resolve

    parts = [_OPENING, "## Keys of every run\n", _table(RunConfig.model_json_schema())]
    shared: dict[str, Any] | None = None
    schemas = {name: resolve(name).Config.model_json_schema() for name in sorted(ALGORITHMS)}
    for schema in schemas.values():
        properties = schema["properties"]
        shared = properties if shared is None else {k: v for k, v in shared.items() if properties.get(k) == v}
    common = {**next(iter(schemas.values())), "properties": shared or {}}
    parts += ["## Keys of every algorithm\n", _table(common)]
    parts += ["## Keys of `tune`\n", _table(TuneConfig.model_json_schema())]
    for name, schema in schemas.items():
        own = {key: value for key, value in schema["properties"].items() if key not in (shared or {})}
        parts += [f"## `algorithm: {name}`\n", _table({**schema, "properties": own})]
    return "\n".join(parts)


def _table(schema: Mapping[str, Any]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = set(schema.get("required", ()))
    for path, node in _leaves(schema["properties"], schema.get("$defs", {}), required, ""):
        is_required = node.get("required") is True
        default = "*required*" if is_required else f"`{_value(node.get('default'))}`"
        short = next((f" (short: `{short}`)" for short, full in SHORTHANDS.items() if full == path), "")
        meaning = _cell(node.get("description", ""))
        rows.append(f"| `{path}`{short} | {_cell(type_words(node))} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _leaves(
    properties: Mapping[str, Any], definitions: Mapping[str, Any], required: set[str], prefix: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys that have a value of their own, sections opened: ``stop.env_steps``."""
    for key, node in properties.items():
        section = _section(node, definitions)
        if section is not None:
            yield from _leaves(
                section["properties"], definitions, set(section.get("required", ())), f"{prefix}{key}."
            )
        else:
            yield f"{prefix}{key}", {**node, "required": key in required}


def _section(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name = str(node.get("$ref", "")).rpartition("/")[2]
    found = definitions.get(name)
    return found if found is not None and "properties" in found else None


def type_words(node: Mapping[str, Any]) -> str:
    """A JSON schema's type in words: ``whole number ≥ 1``, ``schedule or null``."""
    if "anyOf" in node:
        kinds = [type_words(kind) for kind in node["anyOf"]]
        if {"number", "text"} <= set(kinds):
            kinds = ["schedule", *(kind for kind in kinds if kind not in ("number", "text"))]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in node:
        return " or ".join(f"`{_value(choice)}`" for choice in node["enum"])
    kind = str(node.get("type", "anything"))
    bounds = [
        f" {sign} {node[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in node
    ]
    if kind == "array":
        return "list of " + type_words(node["items"]).replace("number", "numbers", 1) if "items" in node else "list"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`",
             "object": "mapping", "null": "`null`"}
    return words.get(kind, kind) + ",".join(bounds)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
