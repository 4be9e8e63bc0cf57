"""``rlflow tune``: many short trainings that look for good hyperparameters, side by side on one engine.

Each trial is a task, which trains in its worker and uses the engine as any training does: its rollouts are tasks
beside those of other trials, and while it waits for them its CPU is theirs. Optuna proposes the values and remembers
them in a file of the study's folder, so that a study that was interrupted goes on: trials that had ended count, those
that ran are run again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from rlflow import engine

from .callbacks import Callback, StopTraining
from .config_check import CheckedConfig, check_config, validate_model
from .config_source import (
    ConfigError,
    ConfigSource,
    Origin,
    apply_arguments,
    apply_overrides,
    dotted,
    read_config_file,
)
from .errors import InputError, RlflowError
from .run_engine import running_engine
from .run_folder import RunFolder, config_as_yaml, shown_path
from .search_space import Choice, Range, parse_dimension

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY = "study"
_NOWHERE = Origin("trial", (0, 0, 0))
REPORTS = 10
"""How often a trial is compared with the others, to be given up early."""


class TuneConfig(BaseModel):
    """The block ``tune`` of a config; the rest of the file is what every trial has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any] = Field(min_length=1, description="by key of the config, the values to choose from")
    trials: PositiveInt = Field(default=20, description="trainings, those of an interrupted study included")
    metric: str = Field(
        default="evaluation", description="'evaluation': mean return at the end; or a metric's last value"
    )
    direction: Literal["maximize", "minimize"] = Field(default="maximize", description="what is better")
    parallel: PositiveInt | None = Field(default=None, description="trials at the same time; null: one a CPU")
    prune: bool = Field(
        default=True, description="give trials up whose episode return is below the median of the others'"
    )
    seed: int = Field(default=0, ge=0, description="of the search; that of the trainings is the config's seed")


class _TuneFile(BaseModel):
    tune: TuneConfig


@dataclass(frozen=True)
class Study:
    """What is to be searched, checked."""

    tune: TuneConfig
    space: dict[str, Range | Choice]
    base: dict[str, Any]
    """The config's other keys, as they were written."""
    example: CheckedConfig
    """The config of one trial."""
    folder: Path

    def values(self, suggested: dict[str, Any], name: str) -> dict[str, Any]:
        """The config of a trial."""
        source = ConfigSource("trial", copy.deepcopy(self.base))
        for key, value in suggested.items():
            source.override(tuple(key.split(".")), value, _NOWHERE)
        return {**source.values, "name": name, "runs_dir": str(self.folder)}


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    run: str
    reason: str = ""


def read_study(path: Path, overrides: list[str], folder: Path | None = None) -> Study:
    """Reads and checks a config with a ``tune`` block.

    Raises:
        ConfigError: with everything that is wrong, the search space included.
    """
    source = read_config_file(path)
    apply_overrides(source, overrides)
    if "tune" not in source.values:
        what = "tune: this key is required, with space in it (what to search: learning_rate: loguniform(1e-5, 1e-2))"
        source.add_problem((), what)
    written = source.values.pop("tune", None)
    tune = None if written is None else validate_model(_TuneFile, {"tune": written}, source, ["tune"])
    base = copy.deepcopy(source.values)
    space: dict[str, Range | Choice] = {}
    entries = written.get("space") if isinstance(written, dict) else None
    for key, entry in (entries if isinstance(entries, dict) else {}).items():
        where = ("tune", "space", key)
        try:
            space[key] = parse_dimension(entry)
        except ValueError as error:
            source.add_problem(where, f"{dotted(where)}: {error}")
            continue
        origin = source.origins[source.written_part(where)]
        source.override(tuple(key.split(".")), space[key].first(), origin)
    example = check_config(source)
    assert tune is not None
    _check_values(space, base, source)
    chosen = folder or Path(example.run.runs_dir) / f"tune_{path.stem}"
    return Study(tune.tune, space, base, example, chosen)


def run_study(study: Study, say: Callable[[str], None]) -> optuna.Study:
    """Runs the trials that are left.

    Args:
        study: what to search.
        say: is told a line for each trial that ends.

    Raises:
        InputError: Optuna is missing, or the folder has another study.
        RlflowError: every trial failed.
        KeyboardInterrupt: the study goes on when it is run again.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("tuning needs Optuna: pip install 'rlflow[tune]'") from None
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _claim_folder(study)
    found = open_study(study.folder, study.tune, load=False)
    for left in found.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        found.tell(left.number, state=TrialState.FAIL)
        found.set_user_attr(f"interrupted {left.number}", True)
        found.enqueue_trial(left.params)
    interrupted = sum(key.startswith("interrupted") for key in found.user_attrs)
    ended = [trial for trial in found.get_trials(deepcopy=False) if trial.state.is_finished()]
    left_to_do = study.tune.trials - (len(ended) - interrupted)
    if ended:
        say(f"going on: {len(ended) - interrupted} trials have ended")
    if left_to_do > 0:
        with running_engine(study.example.run.engine, store=study.folder / "store"):
            _run_trials(study, found, left_to_do, say)
    if not found.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise RlflowError(f"no trial came to its end; the reasons are in {shown_path(study.folder)}/trial_*/log.txt")
    _write_best(study, found)
    return found


def shown_values(params: dict[str, Any]) -> str:
    """``learning_rate=0.00123 epochs=4``, of a trial as Optuna has it."""
    def shown(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value).strip('"')

    return " ".join(f"{key}={shown(value)}" for key, value in params.items())


def _run_trials(study: Study, found: optuna.Study, count: int, say: Callable[[str], None]) -> None:
    from optuna.trial import TrialState

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    task = engine.remote(max_retries=1)(run_trial)
    inline = study.example.run.engine.backend == "inline"
    parallel = study.tune.parallel or (1 if inline else max(1, int(engine.cluster_resources().get("CPU", 1))))
    running: dict[engine.ObjectRef, optuna.Trial] = {}
    begun = 0
    while begun < count or running:
        while begun < count and len(running) < parallel:
            trial = found.ask()
            suggested = {key: dimension.suggest(trial, key) for key, dimension in study.space.items()}
            values = study.values(suggested, f"trial_{trial.number:03}")
            running[task.remote(values, study.tune.model_dump(), str(study.folder), trial._trial_id)] = trial
            begun += 1
        (ready,), _ = engine.wait(list(running))
        trial = running.pop(ready)
        try:
            end: TrialEnd = engine.get(ready)
        except engine.exceptions.EngineError as error:  # its worker died, and again
            end = TrialEnd("failed", None, "", str(error).partition("\n")[0])
        trial.set_user_attr("run", end.run)
        found.tell(trial, end.value if end.state == "complete" else None, state=states[end.state])
        value = end.reason if end.value is None else f"{end.value:.1f}"
        say(f"trial {trial.number:>3} {end.state:<8} {value:>8}  {shown_values(trial.params)}")


def run_trial(values: dict[str, Any], tune: dict[str, Any], folder: str, trial_id: int) -> TrialEnd:
    """One training, in a worker; never raises what the training raised."""
    from .errors import TrainingFailed
    from .training import run_training

    settings = TuneConfig(**tune)
    source = ConfigSource("trial")
    apply_arguments(source, values)
    callbacks: list[Callback] = []
    pruner = None
    if settings.prune:
        import optuna

        study = open_study(Path(folder), settings, load=True)
        pruner = _Pruner(optuna.trial.Trial(study, trial_id), settings)
        callbacks.append(pruner)
    try:
        run = run_training(check_config(source), callbacks, stop_signals=())
    except TrainingFailed as error:
        return TrialEnd("failed", None, str(error.run), str(error).partition("\n")[0])
    value = _outcome(run, settings.metric)
    if pruner is not None and pruner.pruned:
        return TrialEnd("pruned", value, str(run.path))
    if value is None:
        return TrialEnd("failed", None, str(run.path), f"the run has no {settings.metric}")
    return TrialEnd("complete", value, str(run.path))


class _Pruner(Callback):
    """Reports a trial's returns at each tenth of it, and ends it when the others were better there."""

    def __init__(self, trial: optuna.Trial, settings: TuneConfig) -> None:
        self._trial = trial
        self._key = "episode_return" if settings.metric == "evaluation" else settings.metric
        self._total = 1
        self._reported = 0
        self.pruned = False

    def on_start(self, start: Any) -> None:
        self._total = start.total_env_steps

    def on_iteration(self, metrics: dict[str, float]) -> None:
        tenth = int(REPORTS * metrics["env_steps"] / self._total)
        if tenth <= self._reported or tenth >= REPORTS or self._key not in metrics:
            return
        self._reported = tenth
        self._trial.report(metrics[self._key], tenth)
        if self._trial.should_prune():
            self.pruned = True
            raise StopTraining("pruned: below the median of the study's other trials")


def _outcome(run: RunFolder, metric: str) -> float | None:
    from .run_listing import describe_run, last_value

    if metric == "evaluation":
        return describe_run(run).evaluation
    return last_value(run.read_metrics(), metric)


def _check_values(space: dict[str, Range | Choice], base: dict[str, Any], source: ConfigSource) -> None:
    """Every choice and both ends of every range must make a config; the first values have been checked."""
    problems = []
    for key, dimension in space.items():
        values = dimension.values if isinstance(dimension, Choice) else (dimension.high,)
        origin = source.origins[tuple(key.split("."))]
        for value in values:
            other = ConfigSource(source.label, copy.deepcopy(source.values), dict(source.origins))
            other.override(tuple(key.split(".")), int(value) if _is_whole(dimension) else value, origin)
            try:
                check_config(other)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)


def _is_whole(dimension: Range | Choice) -> bool:
    return isinstance(dimension, Range) and dimension.whole


def _claim_folder(study: Study) -> None:
    """Writes down what is searched; a folder with something else is not gone on with."""
    known = {**study.base, "tune": {"space": study.tune.space, "metric": study.tune.metric}}
    text, file = config_as_yaml(known), study.folder / "tune.yaml"
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{shown_path(study.folder)} has a study of another config or search space; give this one a folder of "
                "its own with --study FOLDER"
            )
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {study.folder}: {error.strerror}; give another with --study") from None


def open_study(folder: Path, tune: TuneConfig, load: bool) -> optuna.Study:
    """The study of a folder; a new one where there is none, unless ``load``."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if tune.prune else optuna.pruners.NopPruner()
    if load:
        return optuna.load_study(study_name=STUDY, storage=storage, pruner=pruner)
    study = optuna.create_study(
        study_name=STUDY, storage=storage, pruner=pruner, direction=tune.direction, load_if_exists=True
    )
    # Not the seed alone: a study that goes on would propose its first values again.
    study.sampler = optuna.samplers.TPESampler(seed=tune.seed + len(study.get_trials(deepcopy=False)))
    return study


def best_trials(found: optuna.Study, count: int) -> list[FrozenTrial]:
    """Of those that came to their end, the best first."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    complete = found.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if found.direction == StudyDirection.MAXIMIZE else 1
    return sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:count]


def _write_best(study: Study, found: optuna.Study) -> None:
    """``best.yaml``: the config of the best trial, to be trained as it is."""
    [best] = best_trials(found, 1)
    suggested = {key: dimension.value_of(best.params[key]) for key, dimension in study.space.items()}
    values = study.values(suggested, "")
    for key in ("name", "runs_dir"):
        values.pop(key)
    values |= {key: study.base[key] for key in ("name", "runs_dir") if key in study.base}
    (study.folder / "best.yaml").write_text(config_as_yaml(values), encoding="utf-8")
