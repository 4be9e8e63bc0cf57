"""The programs of examples/programs give on both backends what they gave on Ray."""

import importlib.util
import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted((EXAMPLES / "programs").glob("*.py"))
ON_RAY = json.loads((EXAMPLES / "results_on_ray.json").read_text())


def load(path):
    """The program as a module that nobody can import, so that it travels by value as a script does."""
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_result_is_rays(cluster, path):
    program = load(path)
    if cluster == "inline" and hasattr(program, "NOT_INLINE"):
        pytest.skip(program.NOT_INLINE)
    assert json.loads(json.dumps(program.main())) == ON_RAY[path.stem]


def test_every_program_is_listed():
    assert sorted(ON_RAY) == [path.stem for path in PROGRAMS]
    page = (EXAMPLES / "README.md").read_text()
    assert [path.stem for path in PROGRAMS if f"`{path.stem}`" not in page] == []


def test_the_engine_is_named_in_imports_only():
    """So that a program ports by its imports."""
    for path in PROGRAMS:
        for line in path.read_text().splitlines():
            assert "rlflow" not in line or line.startswith(("import ", "from ")), f"{path.name}: {line}"
