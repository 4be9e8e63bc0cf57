"""One side of ported_programs in one process: runs the asked programs on one engine, writes JSON lines.

Not meant to be called by hand; ``ported_programs.py`` runs it with each side's own Python.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from engine_child import Records, describe, failure, init_options, load_engine

PROGRAMS = Path(__file__).resolve().parent.parent / "examples" / "programs"


def load_program(name: str, side: str) -> ModuleType:
    """A program, unchanged but for the name of the engine in its imports.

    The module is not in ``sys.modules``: its functions travel by value, as those of a script do.
    """
    path = PROGRAMS / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    if side == "ray":
        source = source.replace("rlflow.engine", "ray")
    program = ModuleType(f"program_{name}")
    exec(compile(source, path, "exec"), program.__dict__)
    return program


def run_program(name: str, side: str, backend: str) -> dict[str, Any]:
    """One record. A failure is one, too."""
    record: dict[str, Any] = {"kind": "row", "workload": name, "unit": "s"}
    try:
        program = load_program(name, side)
        if side == "ours" and backend == "inline" and hasattr(program, "NOT_INLINE"):
            return record | {"status": "not inline", "error": program.NOT_INLINE}
        start = time.perf_counter()
        result = program.main()
        seconds = time.perf_counter() - start
    except Exception as error:
        return record | failure(error)
    return record | {"status": "ok", "value": seconds, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("ours", "ray"), required=True)
    parser.add_argument("--backend", default="local")
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("programs", nargs="+")
    asked = parser.parse_args()
    records = Records(asked.out)
    records.write(describe(asked.side, asked.backend))
    engine = load_engine(asked.side)
    engine.init(**init_options(asked.side, asked.backend, asked.cpus))
    for name in asked.programs:
        records.write({"kind": "begin", "workload": name})
        records.write(run_program(name, asked.side, asked.backend))
        gc.collect()  # the actors of one program are gone before the next begins
    engine.shutdown()


if __name__ == "__main__":
    main()
