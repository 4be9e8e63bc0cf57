"""Checks a config against the models of run and algorithm, and words what pydantic found for people."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .callback_loading import find_callback
from .config import RunConfig
from .config_references import resolve_references
from .config_source import ConfigError, ConfigSource, KeyPath, dotted, shown
from .errors import InputError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from rlflow.algorithms.base import Algorithm
    from rlflow.algorithms.config import AlgorithmConfig

Model = TypeVar("Model", bound=BaseModel)

SHORTHANDS = {"lr": "learning_rate"}
"""Keys that may be written short, where the algorithm has the full one."""


CERTAIN = 0.9
"""Above this likeness a word is a slip of a letter or two, and nobody meant another one."""


@dataclass(frozen=True)
class CheckedConfig:
    """A config without mistakes: the run's part, the algorithm's part, and the class they are for."""

    run: RunConfig
    algorithm_class: type[Algorithm]
    algorithm: AlgorithmConfig

    def as_mapping(self) -> dict[str, Any]:
        """The complete config, defaults included, as one flat mapping that can be written as YAML."""
        return {**self.run.model_dump(mode="json"), **self.algorithm.model_dump(mode="json")}


def check_config(source: ConfigSource, algorithm_class: type[Algorithm] | None = None) -> CheckedConfig:
    """Validates a config as a whole.

    Args:
        source: what was written.
        algorithm_class: the class to train, when it was given as a class and not by name.

    Raises:
        ConfigError: with every mistake there is; when the algorithm is unknown, its own keys go unchecked.
    """
    resolve_references(source)
    chosen = algorithm_class or _resolve_algorithm(source)
    fields = chosen.Config.model_fields if chosen else {}
    for short, full in SHORTHANDS.items():
        if short in source.values and short not in fields and full in fields:
            source.rename(short, full)

    run_keys = RunConfig.model_fields.keys()
    for key in run_keys & fields.keys():
        source.add_problem(("algorithm",), f"{chosen}: its Config may not have a key {key!r}, which is the run's own")
    run_values = {key: value for key, value in source.values.items() if key in run_keys}
    algorithm_values = {key: value for key, value in source.values.items() if key not in run_keys}
    all_keys = [*run_keys, *fields]
    run = validate_model(RunConfig, run_values, source, all_keys)
    algorithm = validate_model(chosen.Config, algorithm_values, source, all_keys) if chosen else None
    if (chosen is None or "env" in fields) and isinstance(source.values.get("env"), str):
        _check_env(source, algorithm)
    for index, callback in enumerate(run.callbacks if run else ()):
        try:
            find_callback(callback)
        except InputError as error:
            source.add_problem(("callbacks", index), str(error))
    if source.problems:
        raise ConfigError(source.problems)
    assert run is not None and chosen is not None and algorithm is not None
    return CheckedConfig(run, chosen, algorithm)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean learning_rate?"``, or nothing when no known word is near."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=2, cutoff=0.6)
    if near and difflib.SequenceMatcher(None, near[0], word).ratio() > CERTAIN:
        near = near[:1]
    near = near or [other for other in words if len(word) > 2 and other.startswith(word)][:2]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _resolve_algorithm(source: ConfigSource) -> type[Algorithm] | None:
    name = source.values.get("algorithm")
    if not isinstance(name, str):
        return None  # RunConfig's validation says what is expected
    from rlflow.algorithms import resolve
    from rlflow.algorithms.errors import RLError

    try:
        return resolve(name)
    except RLError as error:
        source.add_problem(("algorithm",), str(error))
    except Exception as error:  # a module of the user's own, which may raise whatever it likes
        frames = traceback.extract_tb(error.__traceback__)
        at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        source.add_problem(("algorithm",), f"importing {name} failed: {type(error).__name__}: {error}{at}")
    return None


def _check_env(source: ConfigSource, config: BaseModel | None) -> None:
    from rlflow.algorithms.envs import check_env
    from rlflow.algorithms.errors import EnvStepError, UnknownEnvError, UnknownWrapperError

    # None: the id is looked up and the env not made; with a mistake in env_kwargs there is nothing to make it with.
    options = None if config is None or source.problems else getattr(config, "env_arguments", None)
    try:
        check_env(source.values["env"], options)
    except UnknownEnvError as error:
        source.add_problem(("env",), str(error))
    except UnknownWrapperError as error:
        source.add_problem(("wrappers",), str(error))
    except EnvStepError as error:
        reason = (error.trace.strip().splitlines() or ["it could not be made"])[-1]
        key = "wrappers" if "wrappers" in source.values and "env_kwargs" not in source.values else "env_kwargs"
        source.add_problem((key,), f"{key}: {source.values['env']} could not be made: {reason}")
    except Exception as error:  # "module:Env-v0" imports a module of the user's own
        source.add_problem(("env",), f"env {source.values['env']!r}: {type(error).__name__}: {error}")


def validate_model(
    model: type[Model], values: Mapping[str, Any], source: ConfigSource, all_keys: list[str]
) -> Model | None:
    """The validated model, or ``None`` with its mistakes added to ``source.problems``."""
    refused = _booleans_for_numbers(model, values, ())
    for path, value in refused.items():
        source.add_problem(path, f"{dotted(path)}: expected a number, got {shown(value)}")
    try:
        result = model.model_validate(dict(values))
    except ValidationError as error:
        for path, details in _by_written_value(error.errors(include_url=False), source).items():
            if path not in refused:
                _add_problem(model, path, details, source, all_keys)
        return None
    return result if not refused else None


def _booleans_for_numbers(model: type[BaseModel], values: Mapping[str, Any], path: KeyPath) -> dict[KeyPath, bool]:
    """Booleans where a number is expected: pydantic would take ``num_envs: true`` for 1."""
    found: dict[KeyPath, bool] = {}
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        if isinstance(value, bool) and _plain_types(field.annotation) <= {int, float, type(None)}:
            found[(*path, key)] = value
        section = _section_model(field)
        if section is not None and isinstance(value, Mapping):
            found |= _booleans_for_numbers(section, value, (*path, key))
    return found


def _plain_types(annotation: Any) -> set[Any]:
    """The alternatives of a type: ``{int, NoneType}`` for ``PositiveInt | None``."""
    arguments = get_args(annotation)
    if get_origin(annotation) is None and not hasattr(annotation, "__metadata__"):
        return set().union(*map(_plain_types, arguments)) if arguments else {annotation}
    if hasattr(annotation, "__metadata__"):
        return _plain_types(arguments[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return set().union(*map(_plain_types, arguments))
    return {get_origin(annotation)}


def _section_model(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _by_written_value(errors: list[ErrorDetails], source: ConfigSource) -> dict[KeyPath, list[ErrorDetails]]:
    """Groups errors by the value they are about.

    Pydantic reports a union once for each of its members, with the member's name at the end of ``loc``.
    """
    grouped: dict[KeyPath, list[ErrorDetails]] = {}
    for details in errors:
        loc: KeyPath = details["loc"]
        path = loc if details["type"] in ("missing", "extra_forbidden") else source.written_part(loc)
        grouped.setdefault(path or loc, []).append(details)
    return grouped


def _add_problem(
    model: type[BaseModel],
    path: KeyPath,
    errors: list[ErrorDetails],
    source: ConfigSource,
    all_keys: list[str],
) -> None:
    name, kind = dotted(path), errors[0]["type"]
    if kind == "extra_forbidden":
        section = _section_at(model, path[:-1])
        top_level = len(path) == 1
        known = all_keys if top_level else list(section.model_fields) if section else []
        hint = _ELSEWHERE.get(name) or did_you_mean(str(path[-1]), known)
        if not hint and not top_level and known:
            hint = f"; {dotted(path[:-1])} has {', '.join(known)}"
        source.add_problem(path, f"{name}: unknown key{hint}")
    elif kind == "missing":
        section = _section_at(model, path)
        needs = [key for key, field in section.model_fields.items() if field.is_required()] if section else []
        inside = f", with {' and '.join(needs)} in it" if needs else ""
        meaning = _description_at(model, path)
        source.add_problem(path, f"{name}: this key is required{inside}" + (f" ({meaning})" if meaning else ""))
    elif kind in ("value_error", "assertion_error"):
        message = errors[0]["msg"].split(", ", 1)[-1]  # pydantic puts "Value error, " before it
        if not path:  # a rule about several keys: point to the first that the message names
            words = re.findall(r"\w+", message)
            path = next(((word,) for word in words if (word,) in source.origins), ())
        source.add_problem(path, f"{name}: {message}" if name else message)
    else:
        expected = " or ".join(dict.fromkeys(_expectation(error) for error in errors))
        got = errors[0]["input"]
        hint = ""
        if kind == "literal_error" and isinstance(got, str):
            hint = did_you_mean(got, re.findall(r"'([^']*)'", str(errors[0]["ctx"]["expected"])))
        source.add_problem(path, f"{name}: expected {expected}, got {shown(got)}{hint}")


_ELSEWHERE = {
    "tune": " here; it is for rlflow tune",
    "runs": " of a single run; rlflow train CONFIG trains files with several",
    "default": " of a single run; rlflow train CONFIG trains files with several",
}
"""Keys of whole files, where a single run is wanted."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


def _expectation(error: ErrorDetails) -> str:
    wording = _EXPECTED.get(error["type"])
    if wording is not None:
        bounds = error.get("ctx", {})
        return wording.format_map(
            {key: f"{bound:g}" if isinstance(bound, float) else bound for key, bound in bounds.items()}
        )
    if error["type"] == "string_pattern_mismatch":
        return "a plain name without slashes or line breaks"
    message = error["msg"].removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    section: type[BaseModel] | None = model
    for key in path:
        field = section.model_fields.get(str(key)) if section else None
        section = _section_model(field) if field else None
    return section


def _description_at(model: type[BaseModel], path: KeyPath) -> str:
    section = _section_at(model, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    return (field.description or "") if field else ""
