"""The programs of examples/programs on Ray and on rlflow: whether the results are equal, and the seconds of each.

    make peers                                   # once: Ray into its own environment
    .venv/bin/python benchmarks/ported_programs.py [--rounds 3] [--only actor]

The program text is the same on both sides but for the name of the engine in its imports. The engines are up before
the first program begins; the seconds are those of its ``main()``, with the start of whatever processes it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from children import MissingPeers, python_of, run_child
from ported_child import PROGRAMS
from report import machine, print_table, ratio_text, ratio_with_range, short, write_json

SIDES = ("ours", "ray")
NAMES = {"ours": "rlflow", "ray": "Ray"}
RECORDED = PROGRAMS.parent / "results_on_ray.json"

Samples = dict[tuple[str, str], list[dict[str, Any]]]
"""(program, side) → one record a round."""


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs everything (3)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="only programs whose name contains NAME; may be repeated")
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="num_cpus of both engines")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's backend")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: benchmarks/results/)")
    parser.add_argument("--record", action="store_true", help=f"keep Ray's results in {RECORDED.name}, for the tests")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.cpus < 1:
        parser.error("--rounds and --cpus must be at least 1")
    if asked.record and (asked.only or asked.side == "ours"):
        parser.error("--record wants all programs on Ray: leave --only and --side out")
    return asked


def chosen(patterns: list[str]) -> list[str]:
    """Names of programs. Raises ValueError for a pattern that is in none of them."""
    names = sorted(path.stem for path in PROGRAMS.glob("*.py"))
    for pattern in patterns:
        if not any(pattern in name for name in names):
            raise ValueError(f"no program is named like {pattern!r}; there are: {', '.join(names)}")
    return [name for name in names if not patterns or any(pattern in name for pattern in patterns)]


def run_side(side: str, names: list[str], asked: argparse.Namespace, samples: Samples, about: dict[str, Any]) -> None:
    """Runs all programs on one side. One that takes its process down costs only itself."""
    left = list(names)
    while left:
        options = ["--side", side, "--backend", asked.backend, "--cpus", str(asked.cpus)]
        outcome = run_child("ported_child.py", side, [*options, *left], timeout=90 + 30 * len(left))
        done = sum(record["kind"] == "row" for record in outcome.records)
        for record in outcome.records:
            if record["kind"] == "side":
                about[side] = record
            elif record["kind"] == "row":
                samples[record["workload"], side].append(record)
        left = left[done:]
        if left:  # the first that has no row was running, or the engine did not even start
            status = "timeout" if outcome.exit_code is None else "crashed"
            samples[left[0], side].append({"status": status, "error": outcome.how})
            left = left[1:]


def summarise(names: list[str], sides: list[str], samples: Samples) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        row: dict[str, Any] = {"program": name, "equal": None, "ratio": None}
        for side in sides:
            records = samples[name, side]
            good = [record for record in records if record["status"] == "ok"]
            row[side] = {
                "samples": [record.get("value") for record in records],  # None where a round failed
                "median": statistics.median(record["value"] for record in good) if good else None,
                "results": [record.get("result") for record in records],
                "failures": [record for record in records if record["status"] != "ok"],
            }
        if len(sides) == 2:
            results = [result for side in sides for result in row[side]["results"]]
            failed = any(row[side]["failures"] for side in sides)
            row["equal"] = not failed and all(result == results[0] for result in results)
            row["ratio"] = ratio_with_range("s", row["ours"]["samples"], row["ray"]["samples"])
        rows.append(row)
    return rows


def report(document: dict[str, Any], sides: list[str]) -> None:
    columns = ["program", *(f"{NAMES[side]}, s" for side in sides)]
    columns += ["rlflow is better by (range)", "results"] if len(sides) == 2 else []
    table, notes = [], []
    for row in document["rows"]:
        cells = [row["program"]]
        for side in sides:
            failures = row[side]["failures"]
            cells.append(failures[0]["status"] if failures else short(row[side]["median"]))
            notes += [f"{NAMES[side]}, {row['program']}: {failure['error']}" for failure in failures[:1]]
        if len(sides) == 2:
            cells += [ratio_text(row["ratio"]), "equal" if row["equal"] else "DIFFERENT"]
        table.append(cells)
    print()
    print_table(f"Ported programs, medians of {document['rounds']} rounds", columns, table, notes)


def main() -> int:
    asked = arguments()
    sides = list(SIDES) if asked.side == "both" else [asked.side]
    try:
        names = chosen(asked.only)
        for side in sides:
            python_of(side)
    except (ValueError, MissingPeers) as error:
        print(f"ported_programs: {error}", file=sys.stderr)
        return 2
    samples: Samples = defaultdict(list)
    about: dict[str, Any] = {}
    document: dict[str, Any] = {
        "benchmark": "ported_programs", "machine": machine(), "rounds": asked.rounds, "cpus": asked.cpus,
        "backend": asked.backend,
    }
    for number in range(asked.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            print(f"round {number + 1} of {asked.rounds}: {NAMES[side]}", flush=True)
            run_side(side, names, asked, samples, about)
    document |= {"sides": about, "rows": summarise(names, sides, samples)}
    report(document, sides)
    if asked.record:
        recorded = {row["program"]: row["ray"]["results"][0] for row in document["rows"]}
        lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in recorded.items()]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"\nwritten to {write_json(document, asked.json, 'ported_programs')}")
    return 0 if all(row["equal"] is not False for row in document["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
