"""How every benchmark measures and reports: variants interleaved within one run, medians, ratios against a bound.

A benchmark is a module with `measure(smallest) -> dict`. Its result holds `settings`, `tables` of medians, and `reached`:
ratios and figures with the bound that they must keep. Single figures depend on the machine; ratios within one run less so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPEATS = 5
PACKAGES = ("torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "langgraph")


def time_call(call: Callable[[], Any]) -> float:
    """Returns the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(variants: dict[str, Callable[[], float]], repeats: int = REPEATS) -> dict[str, float]:
    """Runs all variants in turn, `repeats` times after one that does not count, and returns the median of what each returned.

    Taking turns spreads whatever else the machine does over all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(repeats + 1):
        for name, variant in variants.items():
            value = variant()
            if round_:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Returns a table of a result; numbers are rounded to three digits that count."""
    return {"title": title, "columns": list(columns), "rows": [[_round(value) for value in row] for row in rows]}


def hold_to(what: str, measured: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """Returns a measured value with its bound and whether it is kept."""
    bound = f"at least {least}" if least is not None else f"at most {most}"
    met = measured >= least if least is not None else measured <= (most if most is not None else float("inf"))
    return {"what": what, "bound": bound, "measured": _round(measured), "met": bool(met)}


def describe_machine() -> dict[str, Any]:
    """Says what the figures were measured on."""
    import torch

    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def show(result: dict[str, Any]) -> None:
    """Prints a result as text."""
    for table in result["tables"]:
        print(f"\n{table['title']}")
        rows = [table["columns"], *table["rows"]]
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(table["columns"]))]
        for row in rows:
            print("  ".join(f"{value!s:>{width}}" for value, width in zip(row, widths, strict=True)))
    for held in result["reached"]:
        print(f"{'ok    ' if held['met'] else 'MISSED'} {held['what']}: {held['measured']} ({held['bound']})")


def main(measure: Callable[[bool], dict[str, Any]]) -> None:
    """Runs one benchmark as a command."""
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    parser.add_argument("--json", metavar="OUT", help="write the result there")
    parser.add_argument("--smallest", action="store_true", help="a few seconds, to see that it runs; no figure counts")
    options = parser.parse_args()
    result = measure(options.smallest)
    result["machine"] = describe_machine()
    show(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _round(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)
