"""`empathy-agent evaluate experts`: measures the expert adapters by themselves and prints tables for the model card."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

CHOICES, CHECKS = "dev", "test"  # splits: what is chosen by the one is measured on the other


def run(options: argparse.Namespace) -> int:
    """Measures, or sweeps with --grid; writes JSON, Markdown and the replies, and prints the tables."""
    from empathy_agent.commands.readings import list_versions
    from empathy_agent.content import find_weights
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.cards import load_judge
    from empathy_agent.evaluation.expert_grid import RULE, read_grid, sweep, write_grid
    from empathy_agent.evaluation.expert_losses import measure_losses, read_losses
    from empathy_agent.evaluation.expert_replies import list_cases, measure_replies, write_replies
    from empathy_agent.evaluation.reading_tables import write_tables
    from empathy_agent.training.corpus import list_conversations

    began = time.monotonic()

    def show(step: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {step}", file=sys.stderr, flush=True)

    if options.model and not options.adapters:
        raise InputError("evaluate experts needs --adapters DIR with the adapters of that model")
    sweeps = options.grid is not None
    least, split = (1, CHOICES) if sweeps else (2, CHECKS)
    split = options.split or split
    if not least <= options.candidates <= 8:
        raise InputError(f"--candidates is {options.candidates}: it must lie between {least} and 8")
    if sweeps and split == CHECKS:
        raise InputError(f"--grid chooses, which the split {CHECKS} is kept from: leave out --split, or name another")
    grid = read_grid(options.grid) if sweeps else []
    adapters = Path(options.adapters) if options.adapters else find_weights("experts")
    heads = find_weights("heads")
    engine = EmpathyEngine(model=options.model, adapters=str(adapters) if options.adapters else None)
    judge = load_judge(Path(options.judge) if options.judge else heads / "check", engine)
    written = [c for c in list_conversations(Path(options.conversations)) if c["split"] == split]
    if options.limit and 0 < options.limit < len(written):
        written = [written[i * len(written) // options.limit] for i in range(options.limit)]
    if not written:
        raise InputError(f"no conversation of {options.conversations} has the split {split!r}")
    report: dict[str, Any] = {
        "command": shlex.join(["empathy-agent", *options.given]),
        "versions": list_versions(heads) | {"weights": engine.hash_weights()},
        "seed": options.seed,
        "split": split,
    }
    cases = list(list_cases(written, engine.tasks))
    if sweeps:
        report |= {"candidates": options.candidates, "rule": RULE}
        report["experts"] = sweep(
            engine, judge, cases, grid, candidates=options.candidates, seed=options.seed, show_step=show
        )
        return _write(options, report, "grid", write_grid(report), [])
    show(f"perplexity on {len(written)} conversations")
    read = read_losses(options.model, adapters, written, list(engine.tasks.patterns))
    sections = [measure_losses(read, written, options.seed)]
    texts: dict[int, list[dict[str, Any]]] = {}
    for candidates in (1, options.candidates):
        show(f"{len(cases)} replies, best of {candidates}")
        texts[candidates] = write_replies(engine, cases, candidates, options.seed)
        name = f"replies, best of {candidates}"
        sections.append(measure_replies(engine, judge, cases, texts[candidates], name, options.seed))
    report["sections"] = {s.name: {"figures": s.figures, "errors": s.errors, "curves": s.curves} for s in sections}
    lines = [{**case, "replies": {str(n): texts[n][at]["reply"] for n in texts}} for at, case in enumerate(cases)]
    return _write(options, report, "experts", write_tables(report, "Experts"), lines)


def _write(options: argparse.Namespace, report: dict[str, Any], name: str, tables: str, lines: list[Any]) -> int:
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.reading_tables import write_files

    files = {f"{name}.json": json.dumps(report, indent=2) + "\n", f"{name}.md": tables}
    if lines:
        files["replies.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    try:
        write_files(Path(options.out), files)
    except OSError as error:
        raise InputError(f"cannot write into {options.out}: {error}") from error
    print(json.dumps(report) if options.json else tables)
    return 0
