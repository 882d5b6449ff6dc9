"""`empathy-agent evaluate experts`: measures the expert adapters by themselves and prints tables for the model card."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any


def run(options: argparse.Namespace) -> int:
    """Measures, writes experts.json, experts.md and the replies, and prints the tables."""
    from empathy_agent.commands.readings import list_versions
    from empathy_agent.content import find_weights
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.cards import load_judge
    from empathy_agent.evaluation.expert_losses import measure_losses, read_losses
    from empathy_agent.evaluation.expert_replies import list_cases, measure_replies, write_replies
    from empathy_agent.evaluation.reading_tables import write_files, write_tables
    from empathy_agent.training.corpus import list_conversations

    began = time.monotonic()

    def show(step: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {step}", file=sys.stderr, flush=True)

    if options.model and not options.adapters:
        raise InputError("evaluate experts needs --adapters DIR with the adapters of that model")
    if not 2 <= options.candidates <= 8:
        raise InputError(f"--candidates is {options.candidates}: it must lie between 2 and 8")
    adapters = Path(options.adapters) if options.adapters else find_weights("experts")
    heads = find_weights("heads")
    engine = EmpathyEngine(model=options.model, adapters=str(adapters) if options.adapters else None)
    judge = load_judge(Path(options.judge) if options.judge else heads / "check", engine)
    written = [c for c in list_conversations(Path(options.conversations)) if c["split"] == options.split]
    if options.limit and 0 < options.limit < len(written):
        written = [written[i * len(written) // options.limit] for i in range(options.limit)]
    if not written:
        raise InputError(f"no conversation of {options.conversations} has the split {options.split!r}")
    show(f"perplexity on {len(written)} conversations")
    read = read_losses(options.model, adapters, written, list(engine.tasks.patterns))
    sections = [measure_losses(read, written, options.seed)]
    cases = list(list_cases(written, engine.tasks))
    texts: dict[int, list[dict[str, Any]]] = {}
    for candidates in (1, options.candidates):
        show(f"{len(cases)} replies, best of {candidates}")
        texts[candidates] = write_replies(engine, cases, candidates, options.seed)
        name = f"replies, best of {candidates}"
        sections.append(measure_replies(engine, judge, cases, texts[candidates], name, options.seed))
    report = {
        "command": shlex.join(["empathy-agent", *options.given]),
        "versions": list_versions(heads) | {"weights": engine.hash_weights()},
        "seed": options.seed,
        "sections": {s.name: {"figures": s.figures, "errors": s.errors, "curves": s.curves} for s in sections},
    }
    tables = write_tables(report, "Experts")
    lines = [{**case, "replies": {str(n): texts[n][at]["reply"] for n in texts}} for at, case in enumerate(cases)]
    try:
        write_files(
            Path(options.out),
            {
                "experts.json": json.dumps(report, indent=2) + "\n",
                "experts.md": tables,
                "replies.jsonl": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
            },
        )
    except OSError as error:
        raise InputError(f"cannot write into {options.out}: {error}") from error
    print(json.dumps(report) if options.json else tables)
    return 0
