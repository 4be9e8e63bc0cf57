"""The config as a JSON schema, for editors: completion, descriptions and squiggles while one types.

One schema serves all algorithms: which keys there are depends on what ``algorithm`` says, by ``if`` and ``then``. It is
of draft 7, the newest that the YAML plug-ins of editors know. It allows what the checker allows and cannot refuse all
that the checker refuses: whether an environment exists, say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .config import RunConfig
from .config_check import SHORTHANDS
from .tuning import TuneConfig

DRAFT = "http://json-schema.org/draft-07/schema#"
SCHEDULE = r"^\s*linear\(\s*[^,\s]+\s*,\s*[^,\s]+\s*\)\s*$|^\s*[-+.\deE]+\s*$"


def config_schema() -> dict[str, Any]:
    """Of a config file for any of rlflow's algorithms, or for a class of one's own."""
    from rlflow.algorithms import ALGORITHMS, resolve

    run = RunConfig.model_json_schema()
    definitions = dict(run.get("$defs", {}))
    run_keys = _tidied(run["properties"])
    run_keys["algorithm"] = {
        "description": run_keys["algorithm"]["description"],
        "anyOf": [{"enum": sorted(ALGORITHMS)}, {"type": "string", "pattern": r"^[\w.]+:\w+$"}],
    }
    cases, all_keys = [], dict(run_keys)
    for name in sorted(ALGORITHMS):
        own = resolve(name).Config.model_json_schema()
        definitions |= own.get("$defs", {})
        keys = with_shorthands(_tidied(own["properties"]))
        all_keys = {**keys, **all_keys}
        known = {"propertyNames": {"enum": [*run_keys, *keys, "tune"]}, "properties": keys}
        cases.append({
            "if": {"properties": {"algorithm": {"const": name}}, "required": ["algorithm"]},
            "then": {**known, "required": own.get("required", [])},
        })
    definitions = {name: _tidied(definition) for name, definition in definitions.items()}
    one_run = {
        "properties": {**run_keys, "tune": _tidied(TuneConfig.model_json_schema())},
        "required": run.get("required", []),
        "allOf": cases,
    }
    part = {"type": ["object", "null"], "properties": _optional(all_keys, definitions)}
    several = {
        "properties": {
            "default": {**part, "description": "what the runs share"},
            "runs": {
                "type": "object", "additionalProperties": part, "description": "by name, what each has of its own",
            },
        },
        "required": ["runs"],
        "additionalProperties": False,
    }
    return {
        "$schema": DRAFT,
        "title": "rlflow config",
        "type": "object",
        "if": {"anyOf": [{"required": ["default"]}, {"required": ["runs"]}]},
        "then": several,
        "else": one_run,
        "$defs": definitions,
    }


def _optional(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Without references and without required keys, which may come from the default."""
    if isinstance(node, list):
        return [_optional(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    name = str(node.get("$ref", "")).rpartition("/")[2]
    whole = {**definitions.get(name, {}), **node}
    return {key: _optional(value, definitions) for key, value in whole.items() if key not in ("$ref", "required")}


def with_shorthands(keys: Mapping[str, Any]) -> dict[str, Any]:
    """``keys`` and the short names of those that have one."""
    return {**keys, **{short: keys[full] for short, full in SHORTHANDS.items() if full in keys}}


def _tidied(node: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys; text beside a number must be a schedule."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidied(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if _kinds(tidy.get("anyOf", ())) >= {"number", "string"}:
        tidy["anyOf"] = [
            {**kind, "pattern": SCHEDULE} if kind.get("type") == "string" else kind for kind in tidy["anyOf"]
        ]
    return tidy


def _kinds(alternatives: Iterable[Any]) -> set[str]:
    return {kind.get("type", "") for kind in alternatives if isinstance(kind, dict)}
