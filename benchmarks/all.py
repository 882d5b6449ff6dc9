"""Runs every benchmark, each in a process of its own, and writes the figures into docs/performance.md.

    python -m benchmarks.all --json docs/performance.json [--only adapters,load] [--smallest]

What was measured before and is not run now stays. The page's tables stand between its two marks and are only written here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = (
    "startup",
    "overhead",
    "growth",
    "adapters",
    "first_token",
    "load",
    "repetition",
    "retrieval",
    "assess",
    "sessions",
)
TOP = Path(__file__).parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> int:
    """Runs the chosen benchmarks one after the other; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, metavar="OUT", help="docs/performance.json writes the page beside it")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--smallest", action="store_true", help="a few seconds each, to see that they run")
    parser.add_argument("--million", action="store_true", help="retrieval among a million entries as well")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(NAMES)
    if unknown := sorted(set(chosen) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}: choose from {', '.join(NAMES)}")
    out = Path(options.json)
    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    failed = []
    for name in chosen:
        print(f"\n== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", f"{folder}/result.json"]
            command += ["--smallest"] * options.smallest + ["--million"] * (options.million and name == "retrieval")
            if subprocess.run(command, cwd=TOP).returncode:
                failed.append(name)
                continue
            results[name] = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = out.with_suffix(".md")
    if page.is_file():
        page.write_text(write_page(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def write_page(page: str, results: dict[str, Any]) -> str:
    """Returns the page with the results between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page must hold the marks {BEGIN} and {END}, in this order")
    parts = [BEGIN]
    named = [name for name in NAMES if name in results]
    held = [
        [h["what"], h["bound"], h["measured"], "yes" if h["met"] else "**no**"]
        for n in named
        for h in results[n]["reached"]
    ]
    if held:
        parts.append(_write_table("Bounds", ["what", "bound", "measured", "kept"], held))
    for name in named:
        machine = results[name]["machine"]
        parts += [_write_table(t["title"], t["columns"], t["rows"]) for t in results[name]["tables"]]
        settings = ", ".join(f"{key} {value}" for key, value in results[name]["settings"].items())
        parts.append(
            f"`python -m benchmarks.{name}`: {settings}; {machine['date']}, {machine['processor']}, {machine['threads']} "
            f"of {machine['cores']} cores, load {machine['load']}, torch {machine['versions']['torch']}."
        )
    return before + "\n\n".join(parts) + "\n\n" + END + after


def _write_table(title: str, columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
