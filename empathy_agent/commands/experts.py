"""`empathy-agent evaluate experts`: measures the expert adapters by themselves and prints the tables of the model card."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path


def run(options: argparse.Namespace) -> int:
    """Measures, writes experts.json, experts.md and the replies, and prints the tables."""
    from empathy_agent.commands.readings import list_versions
    from empathy_agent.content import find_weights
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.cards import load_judge
    from empathy_agent.evaluation.expert_losses import measure_losses, read_losses
    from empathy_agent.evaluation.expert_replies import list_cases, measure_replies, write_replies
    from empathy_agent.evaluation.reading_tables import write_tables
    from empathy_agent.training.corpus import list_conversations

    began = time.monotonic()

    def show(step: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {step}", file=sys.stderr, flush=True)

    if options.model and not options.adapters:
        raise InputError("evaluate experts needs --adapters DIR with the adapters of that model")
    adapters = Path(options.adapters) if options.adapters else find_weights("experts")
    heads = find_weights("heads")
    engine = EmpathyEngine(model=options.model, adapters=str(adapters) if options.adapters else None)
    judge = load_judge(Path(options.judge) if options.judge else heads / "check", engine)
    written = [c for c in list_conversations(Path(options.conversations)) if c["split"] == options.split]
    written = written[:: max(1, len(written) // options.limit)] if options.limit else written
    if not written:
        raise InputError(f"no conversation of {options.conversations} has the split {options.split!r}")
    show(f"perplexity on {len(written)} conversations")
    read = read_losses(options.model, adapters, written, list(engine.tasks.patterns))
    sections = [measure_losses(read, written, options.seed)]
    cases, texts = list(list_cases(written, engine.tasks)), {}
    for candidates in (1, options.candidates):
        show(f"{len(cases)} replies, best of {candidates}")
        replies = texts[candidates] = write_replies(engine, cases, candidates, options.seed)
        sections.append(measure_replies(engine, judge, cases, replies, f"replies, best of {candidates}", options.seed))
    report = {
        "command": shlex.join(["empathy-agent", *options.given]),
        "versions": list_versions(heads),
        "seed": options.seed,
        "sections": {s.name: {"figures": s.figures, "errors": s.errors, "curves": s.curves} for s in sections},
        "sources": [],
    }
    out = Path(options.out)
    tables = write_tables(report, "Experts")
    lines = [{**case, "replies": {str(n): texts[n][at] for n in texts}} for at, case in enumerate(cases)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("experts.json", json.dumps(report, indent=2) + "\n"),
            ("experts.md", tables),
            ("replies.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)),
        ):
            (out / f"{name}.unfinished").write_text(text, encoding="utf-8")
            os.replace(out / f"{name}.unfinished", out / name)
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error}") from error
    print(json.dumps(report) if options.json else tables)
    engine.close()
    return 0
