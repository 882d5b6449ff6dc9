"""`empathy-agent assess`: annotates a file of conversations, reports broken lines and finishes the others."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def run(options: argparse.Namespace) -> int:
    """Writes the annotated conversations; exit code 2 where a line could not be read."""
    from rich.console import Console
    from rich.progress import track

    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.assessing import assess_conversations, read_lines

    source, out = Path(options.source), Path(options.out)
    if out.resolve() == source.resolve():
        raise InputError(f"--out is the same file as --in ({source}): name another")
    lines = list(read_lines(source))
    broken = [line for _, line in lines if isinstance(line, InputError)]
    good = [line for _, line in lines if not isinstance(line, InputError)]
    for error in broken:
        print(f"empathy-agent: {error}", file=sys.stderr)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_name(out.name + ".unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            results = assess_conversations(EmpathyEngine(), good)
            console = Console(stderr=True)
            for result in track(results, "assessing", len(good), console=console, disable=not console.is_terminal):
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
        os.replace(unfinished, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}") from error
    print(f"{len(good)} conversations assessed in {out}, {len(broken)} broken lines left out", file=sys.stderr)
    return 2 if broken else 0
