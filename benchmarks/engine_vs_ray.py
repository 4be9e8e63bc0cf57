"""rlflow's engine against Ray, workload by workload, on this machine and in this run.

    make peers                                   # once: Ray into its own environment
    .venv/bin/python benchmarks/engine_vs_ray.py [--rounds 3] [--seconds 2] [--only "round trip"]

The same program text runs on both engines (``workloads/``), each with its own Python, alternated. Plain tasks also run
on the standard library's process pools, which get a table of their own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from children import MissingPeers, python_of, run_child
from engine_child import FIRST_RESULT, IMPORT_AND_FIRST_RESULT, POOLS, features
from report import machine, print_table, ratio_text, ratio_with_range, short, write_json
from workloads import ON_POOLS, Workload, in_groups, select

ENGINES = {"ours": "rlflow", "ray": "Ray"}
NAMES = ENGINES | POOLS
START_UP = (FIRST_RESULT, IMPORT_AND_FIRST_RESULT)
UNITS = dict.fromkeys(START_UP, "s")

Samples = dict[tuple[str, str], list[dict[str, Any]]]
"""(workload, side) → one record a round."""


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs everything (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time per workload and round (2)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="only workloads whose name contains NAME; may be repeated")
    parser.add_argument("--side", choices=(*NAMES, "all"), default="all")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1,
                        help="num_cpus of the engines, processes of the pools")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's backend")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: benchmarks/results/)")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads and stop")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.seconds <= 0 or asked.cpus < 1:
        parser.error("--rounds and --cpus must be at least 1, --seconds above 0")
    return asked


def asked_workloads(patterns: list[str]) -> tuple[list[str], dict[str, list[Workload]]]:
    """The start-up rows and the workloads by group that ``--only`` leaves."""
    start_up = [name for name in START_UP if not patterns or any(p.lower() in name.lower() for p in patterns)]
    others = [p for p in patterns if not any(p.lower() in name.lower() for name in START_UP)]
    if start_up and patterns and not others:
        return start_up, {}
    return start_up, in_groups(select(others))


def child_options(side: str, asked: argparse.Namespace) -> list[str]:
    options = {"--side": side, "--backend": asked.backend, "--cpus": asked.cpus, "--seconds": asked.seconds}
    return [str(word) for option in options.items() for word in option]


def run_start_up(side: str, names: list[str], asked: argparse.Namespace, samples: Samples) -> None:
    outcome = run_child("engine_child.py", side, [*child_options(side, asked), "--start-up"], timeout=120)
    rows = {r["workload"]: r for r in outcome.records}
    for name in names:
        status = "timeout" if outcome.exit_code is None else "crashed"
        failed = {"workload": name, "unit": "s", "status": status, "error": outcome.how}
        keep(rows.get(name, failed), side, samples)


def run_group(
    side: str, group: list[Workload], asked: argparse.Namespace, samples: Samples, about: dict[str, Any]
) -> None:
    """Runs one group on one side. A workload that takes its process down costs only itself."""
    left = [w for w in group if side in ENGINES or w.name in ON_POOLS]
    while left:
        outcome = run_child(
            "engine_child.py", side,
            [*child_options(side, asked), *(w.name for w in left)],
            timeout=90 + len(left) * (asked.seconds * 3 + 20),
        )
        for record in outcome.records:
            if record["kind"] == "side":
                about.setdefault(side, record)
            elif record["kind"] == "row":
                keep(record, side, samples)
        done = {r["workload"] for r in outcome.records if r["kind"] == "row"}
        unfinished = [w for w in left if w.name not in done]
        if not unfinished:
            return
        begun = any(r["kind"] == "begin" for r in outcome.records)
        status = "timeout" if outcome.exit_code is None else "crashed"
        # The first unfinished one was running; when not even one began, the engine itself did not start.
        for lost in unfinished[:1] if begun else unfinished:
            failed = {"workload": lost.name, "unit": lost.unit, "status": status, "error": outcome.how}
            keep(failed, side, samples)
        left = unfinished[1:] if begun else []


def keep(record: dict[str, Any], side: str, samples: Samples) -> None:
    """Files a record away and says so at once: a long run is watched."""
    samples[record["workload"], side].append(record)
    good = record["status"] == "ok"
    result = f"{short(record['value'])} {record['unit']}" if good else describe_failure(record)
    print(f"  {NAMES[side]:<8} {record['workload']:<32} {result}", flush=True)


def describe_failure(record: dict[str, Any]) -> str:
    lines: list[str] = record["error"].splitlines()
    # An error from a worker is a traceback: where it was, and last what it was.
    error = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    return error if record["status"] == "unsupported" else f"{record['status']}: {error}"


def summarise(
    names: list[str], units: dict[str, str], sides: list[str], samples: Samples
) -> list[dict[str, Any]]:
    """One row a workload: every side's samples and median, and beside each peer's how much better rlflow was."""
    rows = []
    for name in names:
        row: dict[str, Any] = {"workload": name, "unit": units[name]}
        for side in sides:
            if (name, side) not in samples:
                continue
            records = samples[name, side]
            good = [r for r in records if r["status"] == "ok"]
            row[side] = {
                "samples": [r.get("value") for r in records],  # None where a round failed
                "median": statistics.median(r["value"] for r in good) if good else None,
                "failures": [{k: r[k] for k in ("status", "error", "traceback") if k in r}
                             for r in records if r["status"] != "ok"],
            }
            for key in ("p50_ms", "p99_ms"):
                if good and all(key in r for r in good):
                    row[side][key] = statistics.median(r[key] for r in good)
            if side != "ours" and "ours" in row:
                row[side]["ratio"] = ratio_with_range(units[name], row["ours"]["samples"], row[side]["samples"])
        rows.append(row)
    return rows


def cell(side_row: dict[str, Any]) -> str:
    failures = side_row["failures"]
    if side_row["median"] is None:
        return failures[0]["status"] if failures else "not run"
    text = short(side_row["median"])
    if failures:
        text += f" ({len(failures)} {failures[0]['status']})"
    return text


def latency(side_row: dict[str, Any]) -> str:
    return f"{side_row['p50_ms']:.2f} / {side_row['p99_ms']:.2f}" if "p50_ms" in side_row else ""


def report(document: dict[str, Any], sides: list[str]) -> None:
    """The engines' table, and one for the rows that process pools have, too."""
    rounds = f"medians of {document['rounds']} rounds"
    print_sides(f"Engine, {rounds}", document["rows"], [side for side in sides if side in ENGINES])
    on_pools = [row for row in document["rows"] if any(side in row for side in POOLS)]
    print_sides(f"Plain tasks beside process pools, {rounds}", on_pools, [side for side in sides if side != "ray"])


def print_sides(title: str, rows: list[dict[str, Any]], sides: list[str]) -> None:
    if not rows or not sides:
        return
    peers = [side for side in sides if side != "ours" and "ours" in sides]
    columns = ["workload", "unit"]
    for side in sides:
        columns += [NAMES[side], "p50 / p99 ms"]
    columns += [f"better than {NAMES[side]} by" for side in peers]
    table = []
    for row in rows:
        cells = [row["workload"], row["unit"]]
        for side in sides:
            cells += [cell(row[side]), latency(row[side])]
        table.append(cells + [ratio_text(row[side]["ratio"]) for side in peers])
    failures = {
        f"{NAMES[side]}, {row['workload']}: {describe_failure(failure)}"
        for row in rows for side in sides for failure in row[side]["failures"]
    }
    print()
    print_table(title, columns, table, sorted(failures))


def header(document: dict[str, Any], sides: list[str]) -> None:
    info = document["machine"]
    print(f"{info['cpu']}, {info['cores']} cores, {info['memory_gib']} GiB, load {info['load_average'][0]}; "
          f"num_cpus={document['cpus']}")
    for side in sides:
        print(f"{NAMES[side]}: {'; '.join(features(side, document['backend']))}")
    print(flush=True)


def main() -> int:
    asked = arguments()
    sides = list(NAMES) if asked.side == "all" else [asked.side]
    try:
        start_up, groups = asked_workloads(asked.only)
        for side in () if asked.list else sides:  # names can be listed before the peers are there
            python_of(side)
    except (ValueError, MissingPeers) as error:
        print(f"engine_vs_ray: {error}", file=sys.stderr)
        return 2
    names = [*start_up, *(w.name for group in groups.values() for w in group)]
    if asked.list:
        print("\n".join(names))
        return 0
    units = UNITS | {w.name: w.unit for group in groups.values() for w in group}
    samples: Samples = defaultdict(list)
    about: dict[str, Any] = {}
    document: dict[str, Any] = {
        "benchmark": "engine_vs_ray", "machine": machine(), "rounds": asked.rounds, "seconds": asked.seconds,
        "cpus": asked.cpus, "backend": asked.backend,
    }
    header(document, sides)
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds}", flush=True)
        # Who goes first changes every round: a machine that slows down or warms up favours nobody.
        order = sides if number % 2 == 0 else sides[::-1]
        if start_up:
            for side in filter(ENGINES.__contains__, order):
                run_start_up(side, start_up, asked, samples)
        for group in groups.values():
            for side in order:
                run_group(side, group, asked, samples, about)
    document |= {"sides": about, "rows": summarise(names, units, sides, samples)}
    report(document, sides)
    print(f"\nwritten to {write_json(document, asked.json, 'engine_vs_ray')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
