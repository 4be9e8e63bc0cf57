"""Several runs in one file: what they share in ``default``, and under ``runs`` what each has of its own.

    default: {algorithm: ppo, env: CartPole-v1, stop: {env_steps: 50000}}
    runs:
      slow: {learning_rate: 1e-4}
      fast: {learning_rate: 1e-3, stop: {env_steps: 20000}}

A run's own keys win; of mappings such as ``stop`` only the keys that it has. Every value keeps its place in the file,
so that a mistake is reported where it stands and not where it is used.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from .config_check import did_you_mean
from .config_source import ConfigError, ConfigSource, KeyPath
from .errors import InputError

DEFAULT, RUNS = "default", "runs"


def is_of_several(source: ConfigSource) -> bool:
    """Whether a file has runs in it, instead of being one."""
    return DEFAULT in source.values or RUNS in source.values


def split_runs(source: ConfigSource, only: Sequence[str] = ()) -> dict[str, ConfigSource]:
    """The configs of a file's runs, by name; the name is ``name`` where a run does not say otherwise.

    Args:
        source: the file, with ``default`` and ``runs``.
        only: names to choose, ``*`` stands for any text; all by default.

    Raises:
        InputError: there is no run of such a name.
        ConfigError: there are no runs. Other mistakes are left to the check of each.
    """
    runs, default = source.values.get(RUNS), source.values.get(DEFAULT, {})
    for key in source.values:
        if key not in (DEFAULT, RUNS):
            what = f"{key}: a file with several runs has {DEFAULT} and {RUNS}; put this into {DEFAULT}"
            source.add_problem((key,), what)
    if not isinstance(runs, Mapping) or not runs:
        what = f"{RUNS}: expected runs by name, such as {RUNS}: {{fast: {{learning_rate: 1e-3}}}}"
        source.add_problem((RUNS,), what)
        raise ConfigError(source.problems)
    if not isinstance(default, Mapping):
        source.add_problem((DEFAULT,), f"{DEFAULT}: expected a mapping of keys to values")
        default = {}
    chosen = [str(name) for name in runs if not only or any(fnmatch.fnmatchcase(str(name), part) for part in only)]
    for part in only:
        if runs and not any(fnmatch.fnmatchcase(str(name), part) for name in runs):
            hint = did_you_mean(part, runs)
            raise InputError(f"--only {part}: there is no such run{hint}; the file has {', '.join(runs)}")
    found = {}
    for name in chosen:
        config = ConfigSource(source.label, problems=list(source.problems))
        lay_over(config, default, source, (DEFAULT,), ())
        own = runs[name] if runs[name] is not None else {}
        if isinstance(own, Mapping):
            lay_over(config, own, source, (RUNS, name), ())
        else:
            config.origins[(RUNS, name)] = source.origins[source.written_part((RUNS, name))]
            config.add_problem((RUNS, name), f"{RUNS}.{name}: expected a mapping of keys to values")
        if "name" not in config.values:
            config.override(("name",), name, source.origins[source.written_part((RUNS, name))])
        found[name] = config
    return found


def lay_over(
    config: ConfigSource, values: Mapping[str, Any], source: ConfigSource, block: KeyPath, path: KeyPath,
    parents: frozenset[int] = frozenset(),
) -> None:
    """Sets in ``config``, below ``path``, what stands in ``source`` below ``block + path``."""
    if id(values) in parents:  # it contains itself, which has been reported
        return
    for key, value in values.items():
        here = (*path, key)
        origin = source.origins[source.written_part((*block, *here))]
        if isinstance(value, Mapping) and value and isinstance(_at(config.values, here), Mapping | None):
            if _at(config.values, here) is None:
                config.override(here, {}, origin)
            lay_over(config, value, source, block, here, parents | {id(values)})
            continue
        config.override(here, copy.deepcopy(value), origin)
        for inner, place in source.origins.items():  # of the items of a list
            if inner[: len(block) + len(here)] == (*block, *here):
                config.origins[inner[len(block) :]] = place


def _at(values: Any, path: KeyPath) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
