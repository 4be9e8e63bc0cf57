"""GPUs of tasks and actors. Nothing here touches a device: the engine only counts and names them."""

import os

import pytest

from rlflow import engine


@pytest.fixture(autouse=True)
def no_visible_devices(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@engine.remote
def mine():
    context = engine.get_runtime_context()
    return engine.get_gpu_ids(), context.get_accelerator_ids(), context.get_assigned_resources()


@engine.remote
def visible():
    return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()


@engine.remote(num_gpus=1)
class Holder:
    def mine(self):
        return engine.get_gpu_ids()


def test_ids_of_tasks(backend):
    engine.init(backend=backend, num_cpus=2, num_gpus=2)
    assert engine.get_gpu_ids() == []
    assert engine.get(mine.remote()) == ([], {"GPU": []}, {"CPU": 1.0})
    assert engine.get(mine.options(num_gpus=2).remote()) == ([0, 1], {"GPU": ["0", "1"]}, {"CPU": 1.0, "GPU": 2.0})
    assert engine.get(mine.options(num_gpus=0.25).remote()) == ([0], {"GPU": ["0"]}, {"CPU": 1.0, "GPU": 0.25})


def test_actors_hold_different_devices(backend):
    engine.init(backend=backend, num_cpus=2, num_gpus=2)
    holders = [Holder.remote() for _ in range(2)]
    assert sorted(engine.get([holder.mine.remote() for holder in holders])) == [[0], [1]]
    del holders
    assert engine.get(mine.options(num_gpus=2).remote())[0] == [0, 1]


def test_fractions_share_one_device(backend):
    engine.init(backend=backend, num_cpus=2, num_gpus=2)
    holders = [Holder.options(num_gpus=0.5).remote() for _ in range(4)]
    assert sorted(engine.get([holder.mine.remote() for holder in holders])) == [[0], [0], [1], [1]]


def test_names_are_those_of_the_environment(backend, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab12,5")
    engine.init(backend=backend, num_cpus=1)
    assert engine.cluster_resources()["GPU"] == 3
    assert engine.get(mine.options(num_gpus=2).remote())[1] == {"GPU": ["3", "GPU-ab12"]}
    assert engine.get(mine.options(num_gpus=1).remote())[0] == [3]


def test_more_than_the_environment_has(backend, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ValueError, match="num_gpus=2, but CUDA_VISIBLE_DEVICES='3' has 1"):
        engine.init(backend=backend, num_gpus=2)


@pytest.mark.parametrize("amount", [1.5, 2.25])
def test_several_gpus_are_whole(amount):
    with pytest.raises(ValueError, match=f"num_gpus must be whole when it is more than 1, got {amount}"):
        mine.options(num_gpus=amount)


def test_the_machine_has_whole_gpus(backend):
    with pytest.raises(ValueError, match=r"num_gpus of init must be whole, got 0\.5"):
        engine.init(backend=backend, num_gpus=0.5)


def test_workers_see_their_devices_only():
    engine.init(num_cpus=2, num_gpus=2)
    hidden, _ = engine.get(visible.remote())
    assert hidden == ""
    first, first_pid = engine.get(visible.options(num_gpus=1).remote())
    both, both_pid = engine.get(visible.options(num_gpus=2).remote())
    assert (first, both) == ("0", "0,1")
    assert first_pid != both_pid  # no process sees two sets of devices
    assert engine.get(visible.remote())[0] == ""
    engine.shutdown()


def test_a_restarted_actor_has_a_device_again(tmp_path):
    @engine.remote(num_gpus=1, max_restarts=1)
    class Fragile:
        def mine(self):
            return engine.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

        def again(self):
            return engine.get_runtime_context().was_current_actor_reconstructed

    engine.init(num_cpus=1, num_gpus=1)
    actor = Fragile.remote()
    assert engine.get(actor.mine.remote()) == ([0], "0")
    assert engine.get(actor.again.remote()) is False
    engine.kill(actor, no_restart=False)
    assert engine.get(actor.mine.remote()) == ([0], "0")
    assert engine.get(actor.again.remote()) is True
    engine.shutdown()
