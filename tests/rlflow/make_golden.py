"""Makes the old checkpoints that test_golden_checkpoints.py loads: ``python tests/rlflow/make_golden.py``.

Only for a new schema version or a new algorithm: what is there stays as it was written, whatever rlflow becomes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import rlflow
from rlflow.checkpoint import SCHEMA_VERSION

GOLDEN = Path(__file__).with_name("golden")
COMMON: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 7, "evaluation": {"episodes": 2}, "engine": {"backend": "inline"}, "trackers": [],
}  # fmt: skip
SMALL_NETS = {"policy_hidden": [8], "value_hidden": [8]}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {
        "num_envs": 2, "env_groups": 2, "rollout_length": 32, "minibatch_size": 32, "epochs": 2,
        "normalize_observations": True, "stop": {"env_steps": 192}, **SMALL_NETS,
    },
    "es": {"population": 8, "members_per_task": 4, "noise_table": 10_000, "hidden": [8], "stop": {"env_steps": 192}},
    "a3c": {"num_envs": 2, "env_groups": 2, "rollout_length": 16, "stop": {"env_steps": 192}, **SMALL_NETS},
}  # fmt: skip


def main() -> None:
    for algorithm, options in RUNS.items():
        target = GOLDEN / f"schema{SCHEMA_VERSION}_{algorithm}"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = rlflow.train(algorithm, **COMMON, **options, runs_dir=folder, progress=False)
            shutil.copytree(run.checkpoints[-1], target / "checkpoints" / run.checkpoints[-1].name)
            shutil.copy(run.path / "metrics.jsonl", target)
            assert run.evaluation is not None
            # What its author wrote, without defaults: those of today's rlflow are to fill in.
            config = {"algorithm": algorithm, **COMMON, **options}
            (target / "config.yaml").write_text(json.dumps(config) + "\n", encoding="utf-8")
            expected = {"returns": run.evaluation["returns"]}
            (target / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
