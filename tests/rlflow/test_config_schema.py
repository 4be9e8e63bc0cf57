"""The schema for editors allows what is right and marks what is wrong; the reference page is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlflow.config_check import check_config
from rlflow.config_reference import config_reference, type_words
from rlflow.config_schema import config_schema
from rlflow.config_source import read_config_file, source_of_arguments

ROOT = Path(__file__).resolve().parents[2]

GOOD: dict[str, Any] = {"algorithm": "ppo", "env": "CartPole-v1", "stop": {"env_steps": 1000}}


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = config_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_of_the_project_fits(validator: Any, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(read_config_file(path).values)] == []


def test_a_complete_config_fits(validator: Any) -> None:
    for algorithm in ("ppo", "es", "a3c"):
        checked = check_config(source_of_arguments({**GOOD, "algorithm": algorithm, "lr": "linear(1e-3, 0)"}))
        assert [error.message for error in validator.iter_errors(checked.as_mapping())] == []
    assert validator.is_valid({**GOOD, "algorithm": "mine:Mine", "my_own_key": 3})


def test_files_of_several_runs_and_searches_fit(validator: Any) -> None:
    several = {"default": GOOD, "runs": {"fast": {"lr": 1e-2, "stop": {"minutes": 1}}, "plain": None}}
    assert [error.message for error in validator.iter_errors(several)] == []
    assert not validator.is_valid({**several, "seed": 1})
    assert not validator.is_valid({"default": {"gamma": 2}, "runs": {"x": {}}})
    assert validator.is_valid({**GOOD, "tune": {"trials": 3, "space": {"lr": "loguniform(1e-4, 1e-2)"}}})
    assert not validator.is_valid({**GOOD, "tune": {"trails": 3, "space": {"lr": [1, 2]}}})


@pytest.mark.parametrize(
    "mistake",
    [
        {"learning_rat": 1e-3}, {"num_envs": "eight"}, {"gamma": 1.5}, {"stop": {"env_step": 1}}, {"stop": {}},
        {"algorithm": "pp"}, {"engine": {"backend": "locl"}}, {"lr": "linear(1e-3)"}, {"population": 64},
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_marked(validator: Any, mistake: dict[str, Any]) -> None:
    assert not validator.is_valid({**GOOD, **mistake})


def test_types_in_words() -> None:
    assert type_words({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}) == "schedule or `null`"
    assert type_words({"type": "array", "items": {"type": "integer", "minimum": 1}}) == "list of whole numbers ≥ 1"


def test_the_reference_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == config_reference(), "run: rlflow schema --markdown --out docs/config.md"
