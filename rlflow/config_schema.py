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
    cases = []
    for name in sorted(ALGORITHMS):
        own = resolve(name).Config.model_json_schema()
        definitions |= own.get("$defs", {})
        keys = with_shorthands(_tidied(own["properties"]))
        known = {"propertyNames": {"enum": [*run_keys, *keys]}, "properties": keys}
        cases.append({
            "if": {"properties": {"algorithm": {"const": name}}, "required": ["algorithm"]},
            "then": {**known, "required": own.get("required", [])},
        })
    return {
        "$schema": DRAFT,
        "title": "rlflow config",
        "type": "object",
        "properties": run_keys,
        "required": run.get("required", []),
        "allOf": cases,
        "$defs": {name: _tidied(definition) for name, definition in definitions.items()},
    }


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
