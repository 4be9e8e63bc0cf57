"""What the machine has: quotas of containers, and GPUs by environment."""

import os

import pytest

from rlflow.engine import machine


def test_a_container_quota_of_version_2(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.cpu_quota(tmp_path) == 1.5
    assert machine.memory_limit(tmp_path) == 1 << 20


def test_a_container_quota_of_version_1(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert machine.cpu_quota(tmp_path) == 2.0
    assert machine.memory_limit(tmp_path) is None


@pytest.mark.parametrize("text", ["max 100000\n", "-1 100000"])
def test_no_quota(tmp_path, text):
    assert machine.cpu_quota(tmp_path) is None
    assert machine.memory_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text(text)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.cpu_quota(tmp_path) is None
    assert machine.memory_limit(tmp_path) is None


def test_cpus_are_within_affinity_and_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    assert machine.cpus() == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.cpus() == 1


def test_gpus_by_environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpus(None) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,2,-1,1")
    assert machine.gpus(None) == ["4", "2"]
    assert machine.gpus(1) == ["4"]


def test_gpus_by_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "none")
    assert machine.gpus(None) == []
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "gpus")
    assert machine.gpus(None) == ["0", "1"]
