"""The benchmark programs run, on our own side and at tiny sizes. How fast anything was does not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)


def run_to_json(name: str, path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    done = run_program(name, "--side", "ours", "--json", str(path), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(path.read_text())
    return done.stdout, document


def test_engine_workloads_give_a_row_each(tmp_path: Path) -> None:
    chosen = ["init to first", "tasks, 1 client", "task round trip", "actor call, sync", "put arrays of 1 MB"]
    only = [word for name in chosen for word in ("--only", name)]
    printed, document = run_to_json(
        "engine_vs_ray.py", tmp_path / "result.json", *only,
        "--rounds", "2", "--seconds", "0.02", "--cpus", "2",
    )
    rows = {row["workload"]: row for row in document["rows"]}
    assert all(any(name in row for row in rows) for name in chosen)
    for row in rows.values():
        assert row["ours"]["failures"] == []
        assert len(row["ours"]["samples"]) == 2
        assert min(row["ours"]["samples"]) > 0
        assert row["workload"] in printed
    assert rows["task round trip"]["ours"]["p99_ms"] >= rows["task round trip"]["ours"]["p50_ms"]
    assert document["machine"]["cores"] >= 1
    assert document["sides"]["ours"]["versions"]["rlflow"]


@pytest.mark.parametrize("side", ["pool", "executor"])
def test_process_pools_run_plain_tasks_beside_the_engines(tmp_path: Path, side: str) -> None:
    path = tmp_path / "result.json"
    done = run_program(
        "engine_vs_ray.py", "--side", side, "--json", str(path), "--rounds", "1", "--seconds", "0.02", "--cpus", "2",
        "--only", "tasks, 1 client", "--only", "round trip", "--only", "actor call, sync",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["workload"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["task round trip"][side]["median"] > 0 and rows["tasks, 1 client, async"][side]["median"] > 0
    assert side not in rows["actor call, sync"], "a pool has no actors"
    assert "beside process pools" in done.stdout


def test_every_engine_workload_runs_or_says_what_is_missing(tmp_path: Path) -> None:
    """All of them, inline: one that cannot even run would go unseen until somebody measures a release."""
    everything = ["--backend", "inline", "--rounds", "1", "--seconds", "0.001"]
    _, document = run_to_json("engine_vs_ray.py", tmp_path / "result.json", *everything)
    listed = run_program("engine_vs_ray.py", "--list").stdout.splitlines()
    assert [row["workload"] for row in document["rows"]] == listed
    for row in document["rows"]:
        for failure in row["ours"]["failures"]:
            assert failure["status"] == "unsupported", failure


def test_a_failing_workload_is_reported_and_costs_only_itself(tmp_path: Path) -> None:
    printed, document = run_to_json(
        "engine_vs_ray.py", tmp_path / "result.json", "--backend", "inline", "--rounds", "1",
        "--seconds", "0.01", "--only", "actor calls, 16 threads", "--only", "actor call, sync",
    )
    rows = {row["workload"]: row["ours"] for row in document["rows"]}
    assert rows["actor call, sync"]["median"] > 0
    threads = rows["actor calls, 16 threads"]
    if threads["failures"]:  # until actors may have several threads
        assert threads["median"] is None
        assert "max_concurrency" in threads["failures"][0]["error"]
        assert "max_concurrency" in printed


def test_an_unknown_workload_is_refused_with_the_known_ones() -> None:
    done = run_program("engine_vs_ray.py", "--side", "ours", "--only", "tsaks")
    assert done.returncode == 2
    assert "tsaks" in done.stderr and "task round trip" in done.stderr
    assert "Traceback" not in done.stderr


def test_ported_programs_give_results_and_seconds(tmp_path: Path) -> None:
    printed, document = run_to_json(
        "ported_programs.py", tmp_path / "result.json", "--rounds", "2", "--cpus", "2",
        "--only", "word", "--only", "tree",
    )
    recorded = json.loads((ROOT / "examples" / "results_on_ray.json").read_text())
    assert [row["program"] for row in document["rows"]] == ["tree_reduction", "word_count"]
    for row in document["rows"]:
        assert row["ours"]["failures"] == []
        assert row["ours"]["results"] == [recorded[row["program"]]] * 2
        assert min(row["ours"]["samples"]) > 0
        assert row["program"] in printed


def test_a_program_that_cannot_run_inline_says_why(tmp_path: Path) -> None:
    printed, document = run_to_json(
        "ported_programs.py", tmp_path / "result.json", "--rounds", "1", "--backend", "inline", "--only", "crashing"
    )
    (row,) = document["rows"]
    assert row["ours"]["failures"][0]["status"] == "not inline"
    assert "would end the program" in printed


def test_ppo_run_gives_all_figures(tmp_path: Path) -> None:
    printed, document = run_to_json(
        "ppo_vs_sb3.py", tmp_path / "result.json", "--seeds", "3", "--steps", "600", "--rows", "cartpole_own_loss"
    )
    (comparison,) = document["rows"]
    assert comparison["ours"] == {"changes": {}, "own_loss": True}
    (run,) = comparison["runs"]["ours"]
    assert run["status"] == "ok", run
    assert run["seed"] == 3
    assert run["env_steps"] >= 600
    assert len(run["evaluation_returns"]) == 20
    assert run["solved_steps"] is None, "600 steps cannot solve CartPole"
    rows = {row["figure"]: row["ours"]["median"] for row in comparison["figures"]}
    assert rows["steps_per_second"] > 0 and rows["set_up_seconds"] > 0 and rows["evaluation_return"] > 0
    assert rows["solved_seconds"] is None
    assert "env steps/s" in printed


def test_es_is_measured_beside_bare_loops(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = run_program(
        "es_scaling.py", "--backend", "inline", "--envs", "CartPole-v1", "--populations", "2", "6", "--rounds", "2",
        "--steps", "50", "--iterations", "1", "--bare-steps", "50", "--json", str(path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(path.read_text())
    assert [row["population"] for row in document["rows"]] == [2, 6]
    for row in document["rows"]:
        assert row["env_steps"] >= 50 and row["tasks_per_second"] > 0 and 0 < row["share_in_envs"] <= 1
        assert row["bare_policy_loop"] > 0 and row["of_bare_env_loop"] > 0
        assert f"{row['env']}, {row['population']}" in done.stdout


def test_chaos_compares_every_result_and_says_what_it_killed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = run_program(
        "chaos.py", "--minutes", "0.03", "--seed", "3", "--pause", "0.15", "--json", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(path.read_text())
    assert document["difference"] is None
    assert document["rounds"] > 1 and document["results_compared"] > 50 and document["trainings_compared"] > 0
    assert sum(document["kills"].values()) > 0
    assert document["deaths_seen"] >= 1 and max(document["longest_stall_s"].values()) > 0


def test_a_chain_of_tasks_is_replayed_in_part() -> None:
    done = run_program("lineage_chain.py", "--links", "300")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["right"] and 0 < result["run_again"] <= 128
    assert all(checkpoint["remembered"] <= 128 for checkpoint in result["checkpoints"])


def test_recovery_measures_what_deaths_cost(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = run_program(
        "recovery.py", "--calls", "60", "--checkpoint-every", "20", "--kills", "1", "--seconds", "0.6",
        "--json", str(path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(path.read_text())
    (sample,) = document["actor"]
    assert sample["calls"] == 60 and 0 <= sample["run_again"] <= 20
    (run,) = document["chains"]
    assert run["before"] > 0 and sum(run["tasks_per_bin"]) > run["before"]
    assert len(document["callers"]) == 3
    assert all(wait > 0 for waits in document["callers"].values() for each in waits.values() for wait in each)


WRONG = """
import sys
sys.path.insert(0, {folder!r})
import chaos, chaos_load
chaos_load.tree_of = lambda seed, depth: 0
sys.argv[1:] = {arguments!r}
sys.exit(chaos.main())
"""


def test_chaos_fails_with_what_differed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    program = WRONG.format(folder=str(ROOT / "benchmarks"), arguments=["--minutes", "0.02", "--json", str(path)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 1
    assert "Difference: task trees of round 0: got [" in done.stderr
    assert json.loads(path.read_text())["difference"].startswith("Difference: task trees of round 0")


def test_returns_are_trained_once_and_compared_with_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "returns.json"
    short = ("--steps", "600", "--episodes", "2", "--backend", "inline", "--json", str(path))
    done = run_program("returns.py", "--rows", "a3c_cartpole", "--seeds", "0-1", *short)
    assert done.returncode == 0, done.stdout + done.stderr
    first = json.loads(path.read_text())["rows"]["a3c_cartpole"]
    assert sorted(first["runs"]) == ["0", "1"] and len(first["runs"]["0"]["returns"]) == 2
    assert first["reached"] == min(run["mean_return"] for run in first["runs"].values())
    assert first["met"] is None, "three seeds are wanted"

    again = run_program("returns.py", "--rows", "a3c_cartpole", "--seeds", "1,2", *short)
    assert "seed 2:" in again.stdout and "seed 1:" not in again.stdout
    row = json.loads(path.read_text())["rows"]["a3c_cartpole"]
    assert row["met"] is False and row["runs"]["0"] == first["runs"]["0"]


def test_returns_name_rows_that_do_not_exist() -> None:
    done = run_program("returns.py", "--rows", "ppo_catpole")
    assert done.returncode == 2 and "ppo_cartpole" in done.stderr and "Traceback" not in done.stderr


def test_a3c_run_gives_all_figures(tmp_path: Path) -> None:
    printed, document = run_to_json(
        "a3c_vs_a2c.py", tmp_path / "result.json", "--seeds", "3", "--steps", "600", "--backend", "inline"
    )
    (run,) = document["runs"]["ours"]
    assert run["status"] == "ok", run
    assert len(run["evaluation_returns"]) == 20
    rows = {row["figure"]: row["ours"]["median"] for row in document["rows"]}
    assert all(rows[figure] > 0 for figure in ("steps_per_second", "steps_per_cpu_second", "evaluation_return"))
    assert "env steps/s" in printed
