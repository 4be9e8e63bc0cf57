"""The displays: they fit their terminal, survive missing numbers, and say when they are done."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rlflow.callbacks import RunStart
from rlflow.config_check import check_config
from rlflow.config_source import source_of_arguments
from rlflow.progress import LiveProgress, PlainProgress, progress_for, sparkline
from rlflow.run_folder import RunFolder

METRICS = {
    "env_steps": 40_000.0, "iteration": 80.0, "episodes": 274.0, "steps_per_second": 12_304.0, "policy_loss": -0.0123,
    "value_loss": 12.3, "entropy": 0.54, "kl": 0.0081, "clip_fraction": 0.12, "explained_variance": 0.87,
    "episode_return": 215.3, "episode_length": 215.3,
}  # fmt: skip


@pytest.fixture
def start(tmp_path: Path) -> RunStart:
    config = check_config(
        source_of_arguments({"algorithm": "ppo", "env": "CartPole-v1", "stop": {"env_steps": 100_000}})
    )
    return RunStart(config, RunFolder(tmp_path / "ppo_CartPole-v1_0_20250131-174502"), num_cpus=2)


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None, legacy_windows=False
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_display_fits_the_terminal_without_wrapping(start: RunStart, width: int) -> None:
    console = terminal(width)
    display = LiveProgress(console)
    display.on_start(start)
    for step in range(1, 101):
        display.on_iteration({**METRICS, "env_steps": step * 1000.0, "episode_return": float(step)})
    picture = display.render()
    lines = console.render_lines(picture, pad=False)
    text = ["".join(segment.text for segment in line).rstrip() for line in lines]
    display.on_end(start.folder)
    assert len(text) == 5
    assert all(len(line) <= width for line in text)
    assert text[0].lstrip().startswith("100%") and "100,000 steps" in text[0]
    assert "return" in text[1] and "policy loss" in text[2] and "expl. var" in text[3]
    assert text[4].rstrip().endswith("█") and "▁" in text[4]


def test_numbers_that_do_not_exist_yet_are_dashes(start: RunStart) -> None:
    file = io.StringIO()
    display = PlainProgress(Console(file=file, width=200, highlight=False))
    display.on_start(start)
    display.on_iteration({"env_steps": 256.0, "iteration": 1.0, "episode_return": float("nan"), "policy_loss": 0.5})
    lines = file.getvalue().splitlines()
    assert lines[0] == "ppo on CartPole-v1 · seed 0 · 100,000 env steps · 2 CPUs · local engine"
    assert lines[2] == "      256 steps   0%: return –, policy loss 0.5000, – steps/s"


def test_a_percentage_is_not_rounded_up(start: RunStart) -> None:
    file = io.StringIO()
    display = PlainProgress(Console(file=file, width=200, highlight=False))
    display.on_start(start)
    display.on_iteration({**METRICS, "env_steps": 99_900.0})
    display.on_iteration({**METRICS, "env_steps": 100_100.0})
    assert [line[:20] for line in file.getvalue().splitlines()[2:]] == ["   99,900 steps  99%", "  100,100 steps 100%"]


def test_pipes_get_lines_and_terminals_a_display() -> None:
    assert isinstance(progress_for(Console(file=io.StringIO())), PlainProgress)
    assert isinstance(progress_for(terminal(80)), LiveProgress)


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([5.0], 10, "▁"),
        ([1.0, 1.0], 10, "▁▁"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8, "▁▂▃▄▅▆▇█"),
        ([0.0, 0.0, 10.0, 10.0], 2, "▁█"),
    ],
)
def test_sparklines(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn
