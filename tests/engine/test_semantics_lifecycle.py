"""init, shutdown, and what happens before, twice and after."""

import os
import subprocess
import sys
import textwrap

import pytest

from rlflow import engine
from rlflow.engine.exceptions import EngineStateError, UnsupportedError


@engine.remote
def identity(value):
    return value


def test_init_gives_the_context(backend):
    assert not engine.is_initialized()
    context = engine.init(backend=backend, num_cpus=1, namespace="space")
    assert engine.is_initialized()
    assert (context.backend, context.role, context.namespace) == (backend, "driver", "space")
    engine.shutdown()
    assert not engine.is_initialized()


def test_init_twice(backend):
    first = engine.init(backend=backend, num_cpus=1)
    with pytest.raises(EngineStateError, match=r"initialised already.*shutdown"):
        engine.init(backend=backend)
    again = engine.init(backend=backend, num_cpus=7, ignore_reinit_error=True)
    assert again == first
    assert engine.cluster_resources()["CPU"] == 1


def test_shutdown_twice_and_without_init(backend):
    engine.shutdown()
    engine.init(backend=backend, num_cpus=1)
    engine.shutdown()
    engine.shutdown()


def test_one_engine_after_another(backend):
    for n in (1, 2):
        engine.init(backend=backend, num_cpus=n)
        assert engine.cluster_resources()["CPU"] == n
        assert engine.get(identity.remote(n)) == n
        engine.shutdown()


def test_shutdown_with_work_in_hand(backend):
    @engine.remote
    class Keeper:
        def keep(self, value):
            self.value = value

    engine.init(backend=backend, num_cpus=1)
    keeper = Keeper.options(name="keeper").remote()
    refs = [identity.remote(i) for i in range(100)] + [keeper.keep.remote(i) for i in range(10)]
    assert len(refs) == 110
    engine.shutdown()  # whatever is unfinished is dropped; the leak check sees to the rest


def test_names_of_actors_end_with_the_engine(backend):
    @engine.remote
    class Named:
        def who(self):
            return "second"

    for _ in range(2):
        engine.init(backend=backend, num_cpus=1)
        actor = Named.options(name="same").remote()
        assert engine.get(actor.who.remote()) == "second"
        engine.shutdown()


def test_refs_die_quietly_after_shutdown(backend):
    engine.init(backend=backend, num_cpus=1)
    refs = [engine.put(i) for i in range(3)] + [identity.remote(1)]
    engine.shutdown()
    with pytest.raises(EngineStateError, match="shutdown"):
        refs[0].future()
    del refs


def test_the_namespace_of_init_is_where_names_live(backend):
    @engine.remote
    class Named:
        def who(self):
            return "here"

    engine.init(backend=backend, num_cpus=1, namespace="mine")
    actor = Named.options(name="n").remote()
    assert engine.get(actor.who.remote()) == "here"
    assert engine.get_actor("n", namespace="mine") == actor
    with pytest.raises(ValueError, match="default"):
        engine.get_actor("n", namespace="default")


def test_a_fork_is_told_that_the_handle_is_not_its_own(backend):
    engine.init(backend=backend, num_cpus=1)
    assert engine.get(identity.remote(1)) == 1
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.put(1)
            told = "nothing"
        except EngineStateError as error:
            told = str(error)
        os.write(write_end, told.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert "forked" in told and str(os.getpid()) in told
    assert engine.get(identity.remote(2)) == 2


def test_what_init_refuses():
    with pytest.raises(ValueError, match="backend must be 'local' or 'inline', got 'remote'"):
        engine.init(backend="remote")
    with pytest.raises(UnsupportedError, match="'ray' is not supported yet"):
        engine.init(backend="ray")
    with pytest.raises(UnsupportedError, match=r"init\(address='1.2.3.4:5'\)"):
        engine.init(address="1.2.3.4:5")
    with pytest.raises(TypeError, match="num_cpu"):
        engine.init(num_cpu=1)
    assert not engine.is_initialized()


def test_first_use_starts_a_local_engine():
    try:
        assert engine.get(identity.remote("auto")) == "auto"
        assert engine.get_runtime_context().backend == "local"
    finally:
        engine.shutdown()


def test_a_program_that_never_calls_shutdown_ends_cleanly(backend):
    program = f"""
        from rlflow import engine

        engine.init(backend={backend!r}, num_cpus=1)

        @engine.remote
        class Actor:
            def hello(self):
                return "hello"

        actor = Actor.remote()
        print(engine.get(actor.hello.remote()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
