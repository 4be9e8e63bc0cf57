"""Mistakes that people make, each with the part of the answer that says what to do instead.

One list, so that it can be read as what it is: how rlflow behaves when it is used wrongly. Every answer goes to stderr,
has no traceback, ends with exit code 2 (the input was wrong) and leaves no run behind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlflow.cli import main
from rlflow.config_check import check_config
from rlflow.config_source import read_config_file
from rlflow.errors import InputError
from rlflow.run_folder import RunFolder


class Mistake(NamedTuple):
    what: str
    command: str
    told: tuple[str, ...]
    config: str = ""
    """Put at the end of ``small.yaml``."""


MISTAKES = [
    Mistake(
        "the file is somewhere else", "train smal.yaml",
        ("smal.yaml: there is no such file", ". has es.yaml, small.yaml"),
    ),
    Mistake(
        "a key is misspelt", "train small.yaml",
        ("small.yaml:12:1: learning_rat: unknown key; did you mean learning_rate?",), "learning_rat: 3e-4\n",
    ),
    Mistake(
        "a number is written as a word", "train small.yaml num_envs=eight",
        ("override 'num_envs=eight': num_envs: expected a whole number, got 'eight'",),
    ),
    Mistake(
        "a value is out of its range", "train small.yaml",
        ("small.yaml:12:1: gamma: expected a number of at most 1, got 1.5",), "gamma: 1.5\n",
    ),
    Mistake(
        "a key is given twice", "train small.yaml",
        ("small.yaml:12:1: seed is given twice; the first is on line 3",), "seed: 4\n",
    ),
    Mistake(
        "the indentation is wrong", "train small.yaml",
        ("small.yaml:13:4: not valid YAML: mapping values are not allowed here; check the indentation",),
        "a: 1\n  b: 2\n",
    ),
    Mistake(
        "an environment is misspelt", "train small.yaml env=CartPol-v1",
        ("unknown env 'CartPol-v1'; did you mean 'CartPole-v1'",),
    ),
    Mistake(
        "an environment's module is not there", "train small.yaml env=my_envs:Mine-v0",
        ("env 'my_envs:Mine-v0': cannot import module 'my_envs'",),
    ),
    Mistake(
        "an environment does not take an argument", "train small.yaml env_kwargs.gravty=9",
        ("env_kwargs: CartPole-v1 could not be made", "unexpected keyword argument 'gravty'"),
    ),
    Mistake(
        "an algorithm is misspelt", "train small.yaml algorithm=pp",
        ("unknown algorithm 'pp'; did you mean 'ppo'? (known: a3c, es, ppo; or 'module:Class' of your own)",),
    ),
    Mistake(
        "a class is not in its module", "train small.yaml algorithm=mine:Min",
        ("module 'mine' has no 'Min'; did you mean 'Mine'?",),
    ),
    Mistake(
        "a schedule is written wrongly", "train small.yaml lr=linear(1e-3)",
        ("is not a schedule: write a number, or linear(start, end) as in linear(1e-3, 0)",),
    ),
    Mistake(
        "keys do not fit each other", "train small.yaml env_groups=3",
        ("num_envs (4) must be a multiple of env_groups (3): every group has the same number of environments",),
    ),
    Mistake(
        "a reference leads nowhere", "train small.yaml minibatch_size=${rolout_length}",
        ("there is no 'rolout_length' in this config", "did you mean rollout_length?"),
    ),
    Mistake(
        "an override has no equals sign", "train small.yaml seed",
        ("override 'seed': expected key=value, such as stop.env_steps=50000",),
    ),
    Mistake("there is nothing to train", "train", ("give a config, such as configs/ppo_cartpole.yaml, or --resume",)),
    Mistake("seeds run backwards", "train small.yaml --seeds 4-0", ("expected seeds such as 0-4 or 0,3,7, got '4-0'",)),
    Mistake(
        "a GPU is asked for where there is no use for it", "train es.yaml --device cuda",
        ("--device cuda: es runs on the CPU only",),
    ),
    Mistake(
        "the folder of runs is a file", "train small.yaml runs_dir=small.yaml",
        ("set runs_dir=<a folder you may write>",),
    ),
    Mistake("a run is misspelt", "eval oung", ("there is no run 'oung'", "the newest in runs/: young")),
    Mistake(
        "a run is resumed as another", "train --resume young gamma=0.5",
        ("a run that goes on keeps its gamma; what may change is stop, evaluation, checkpoint, engine",),
    ),
    Mistake("a run has learned nothing yet", "eval young", ("runs/young has no checkpoint yet: train it further",)),
    Mistake("a run has no curve yet", "plot young", ("runs/young has no episode returns yet: no episode has ended",)),
    Mistake("one run is compared", "compare young", ("give two runs or more to compare; rlflow runs lists them",)),
    Mistake("a condition has no value", "runs --where env", ("expected key=value, such as env=CartPole-v1",)),
    Mistake(
        "there is no search space", "tune small.yaml", ("tune: this key is required, with space in it",),
    ),
    Mistake(
        "a search space is written wrongly", "tune small.yaml",
        ("small.yaml:12:16: tune.space.gamma: expected a range or choices, got 'between(0, 1)'; write uniform(a, b)",),
        "tune: {space: {gamma: 'between(0, 1)'}}\n",
    ),
    Mistake("a new file would hide a module", "new env numpy", ("would hide the Python module 'numpy'; take another",)),
    Mistake("a verb is misspelt", "trian small.yaml", ("No such command 'trian'", "Did you mean 'train'?")),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.what.replace(" ", "_") for mistake in MISTAKES])
def test_a_mistake_is_answered_with_what_to_do(
    mistake: Mistake, workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    young = RunFolder.create(Path("runs"), "young")
    young.write_config(check_config(read_config_file(Path("small.yaml"))).as_mapping())
    Path("mine.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Mine(PPO):\n    pass\n"
    )
    Path("es.yaml").write_text("algorithm: es\nenv: CartPole-v1\nstop: {env_steps: 1}\n")
    with Path("small.yaml").open("a") as file:
        file.write(mistake.config)
    monkeypatch.setenv("COLUMNS", "300")  # a line of the answer stays a line
    monkeypatch.setattr(sys, "argv", ["rlflow", *_words(mistake.command)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capfd.readouterr().err
    assert ended.value.code == 2, told
    for part in mistake.told:
        assert part in told, told
    assert "Traceback" not in told
    assert [entry.name for entry in Path("runs").iterdir()] == ["young"]


def _words(command: str) -> list[str]:
    return command.split(" ")


@pytest.mark.parametrize("extra", ["tune", "video", "export", "plot"])
def test_a_missing_extra_is_named_before_anything_is_done(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlflow import export, plotting, tuning, video

    for package in ("optuna", "imageio", "onnx", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    nothing: Any = None
    uses = {
        "tune": lambda: tuning.run_study(nothing, print),
        "video": lambda: video.film_episode(nothing, "CartPole-v1", {}, nothing, 0, 0),
        "export": lambda: export.export_policy(nothing, "CartPole-v1", {}, nothing, "onnx", {}),
        "plot": lambda: plotting.plot_runs([], nothing),
    }
    with pytest.raises(InputError, match=rf"pip install 'rlflow\[{extra}\]'"):
        uses[extra]()


def test_there_are_many() -> None:
    assert len(MISTAKES) >= 15 and len({mistake.what for mistake in MISTAKES}) == len(MISTAKES)
