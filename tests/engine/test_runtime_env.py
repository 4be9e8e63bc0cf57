"""``runtime_env``: normal form, inheritance, and what workers find."""

import json
import os
import sys

import pytest

from rlflow import engine
from rlflow.engine.exceptions import RuntimeEnvSetupError, UnsupportedError
from rlflow.engine.runtime_env import merged, normal_form


@engine.remote
def look(name):
    return os.environ.get(name), os.getpid()


@engine.remote
def look_below(name):
    return engine.get(look.remote(name))


@engine.remote
class Looker:
    def look(self, name):
        return os.environ.get(name)


def with_variable(value):
    return {"runtime_env": {"env_vars": {"RLFLOW_TEST_COLOUR": value}}}


def colour(function, value):
    return engine.get(function.options(**with_variable(value)).remote("RLFLOW_TEST_COLOUR"))


WRONG = [
    ("red", TypeError, "runtime_env must be a dict, got 'red'"),
    ({"pip": ["x"]}, UnsupportedError, "key 'pip' is not supported; known: env_vars, working_dir, py_modules"),
    ({"conda": "x"}, UnsupportedError, "key 'conda' is not supported"),
    ({"env_vars": ["A"]}, TypeError, "must be a dict of str to str"),
    ({"env_vars": {"A": 1}}, TypeError, "must be a dict of str to str, got 'A': 1"),
    ({"env_vars": {"A=B": "1"}}, ValueError, "'A=B': '1' cannot be an environment variable"),
    ({"working_dir": 5}, TypeError, "must be a path, got 5"),
    ({"working_dir": "/no/such/folder"}, ValueError, "/no/such/folder is not a folder"),
    ({"py_modules": "/tmp"}, TypeError, "must be a list of paths or modules"),
    ({"py_modules": [3]}, TypeError, "must hold paths or modules, got 3"),
    ({"py_modules": ["/no/such.py"]}, ValueError, "/no/such.py is neither a package's folder nor a .py file"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG, ids=str)
def test_wrong_environments(given, error, message):
    with pytest.raises(error, match=message):
        look.options(runtime_env=given)
    with pytest.raises(error, match=message):
        Looker.options(runtime_env=given)
    with pytest.raises(error, match=message):
        engine.init(runtime_env=given)
    assert not engine.is_initialized()


def test_equal_environments_are_equal_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    first = normal_form({"working_dir": str(tmp_path), "env_vars": {"A": "1", "B": "2"}})
    assert first == normal_form({"env_vars": {"B": "2", "A": "1"}, "working_dir": tmp_path.name})
    assert normal_form({}) == normal_form(None) == normal_form({"env_vars": {}}) == ""
    assert json.loads(normal_form({"py_modules": [json]}))["py_modules"] == [os.path.dirname(json.__file__)]


def test_what_lies_on_top():
    below = normal_form({"env_vars": {"A": "1", "B": "2"}, "working_dir": "/"})
    assert json.loads(merged(below, normal_form({"env_vars": {"B": "3"}}))) == {
        "env_vars": {"A": "1", "B": "3"}, "working_dir": "/",
    }  # fmt: skip
    assert merged(below, "") == below and merged("", below) == below


def test_variables(backend):
    engine.init(backend=backend, num_cpus=2)
    assert colour(look, "red")[0] == "red"
    assert colour(look, "blue")[0] == "blue"
    assert engine.get(look.remote("RLFLOW_TEST_COLOUR"))[0] is None
    looker = Looker.options(**with_variable("green")).remote()
    assert engine.get(looker.look.remote("RLFLOW_TEST_COLOUR")) == "green"
    assert "RLFLOW_TEST_COLOUR" not in os.environ


def test_children_inherit(backend):
    engine.init(backend=backend, num_cpus=2)
    assert colour(look_below, "red")[0] == "red"


def test_of_the_whole_engine(backend):
    engine.init(backend=backend, num_cpus=2, **with_variable("grey"))
    assert engine.get(look.remote("RLFLOW_TEST_COLOUR"))[0] == "grey"
    assert engine.get(look_below.remote("RLFLOW_TEST_COLOUR"))[0] == "grey"
    assert colour(look_below, "red")[0] == "red"

    @engine.remote
    def context():
        return engine.get_runtime_context()

    found = engine.get(context.options(runtime_env={"env_vars": {"X": "1"}}).remote())
    assert found.runtime_env == {"env_vars": {"RLFLOW_TEST_COLOUR": "grey", "X": "1"}}
    assert json.loads(found.get_runtime_env_string()) == found.runtime_env


def test_a_worker_serves_its_environment_only():
    engine.init(num_cpus=2)
    first, second = colour(look, "red"), colour(look, "red")
    assert first == second  # the same process
    assert colour(look, "blue")[1] != first[1] != engine.get(look.remote("HOME"))[1]
    engine.shutdown()


def test_folders(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "data.txt").write_text("data")
    (tmp_path / "work" / "rlflow_test_here.py").write_text("WORD = 'here'")
    (tmp_path / "lib" / "rlflow_test_package").mkdir(parents=True)
    (tmp_path / "lib" / "rlflow_test_package" / "__init__.py").write_text("WORD = 'package'")

    @engine.remote(
        runtime_env={"working_dir": tmp_path / "work", "py_modules": [tmp_path / "lib" / "rlflow_test_package"]}
    )
    def words():
        import rlflow_test_here
        import rlflow_test_package

        with open("data.txt") as data:
            return data.read(), rlflow_test_here.WORD, rlflow_test_package.WORD

    engine.init(num_cpus=1)
    assert engine.get(words.remote()) == ("data", "here", "package")
    assert engine.get(look.remote("X"))[0] is None
    assert "rlflow_test_here" not in sys.modules
    engine.shutdown()


def test_a_folder_that_is_gone_when_the_worker_starts(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    task = look.options(runtime_env={"working_dir": folder})
    folder.rmdir()
    engine.init(num_cpus=1)
    with pytest.raises(RuntimeEnvSetupError, match="gone: No such file"):
        engine.get(task.remote("X"))
    assert engine.get(look.remote("X"))[0] is None
    engine.shutdown()


@pytest.mark.parametrize("key", ["working_dir", "py_modules"])
def test_inline_has_no_folders(key, tmp_path):
    environment = {key: tmp_path if key == "working_dir" else [tmp_path]}
    with pytest.raises(UnsupportedError, match=rf"runtime_env\['{key}'\] is not supported by backend='inline'"):
        engine.init(backend="inline", runtime_env=environment)
    engine.init(backend="inline")
    with pytest.raises(UnsupportedError, match="inline"):
        look.options(runtime_env=environment).remote("X")
    with pytest.raises(UnsupportedError, match="inline"):
        Looker.options(runtime_env=environment).remote()
    engine.shutdown()
