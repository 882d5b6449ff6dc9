"""`empathy-agent assess`: annotates a file of conversations, reports broken lines and finishes the others.

Broken lines are warnings: each is named with its number and reason, the others are written, and the exit code is 0. It is 2 where
no line at all could be read. A file is read as a stream, so its size does not matter.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def run(options: argparse.Namespace) -> int:
    """Writes the annotated conversations; exit code 2 where every line is broken."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.assessing import assess_conversations, read_lines

    source, out = Path(options.source), Path(options.out)
    if out.resolve() == source.resolve():
        raise InputError(f"--out is the same file as --in ({source}): name another")
    console = Console(stderr=True)
    columns = (TextColumn("assessing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    broken: list[dict[str, Any]] = []
    assessed = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("assessing", total=count_lines(source))

        def list_good() -> Iterator[dict[str, Any]]:
            for number, line in read_lines(source):
                if isinstance(line, InputError):
                    broken.append({"line": number, "reason": str(line)})
                    console.print(f"empathy-agent: {line}", markup=False, highlight=False, soft_wrap=True)
                    progress.advance(bar)
                else:
                    yield line

        unfinished = out.with_name(out.name + ".unfinished")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            # `x` follows no link that somebody else left at this name.
            with unfinished.open("x", encoding="utf-8") as file:
                for result in assess_conversations(EmpathyEngine(), list_good()):
                    file.write(json.dumps(result, ensure_ascii=False) + "\n")
                    assessed += 1
                    progress.advance(bar)
            os.replace(unfinished, out)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)
    summary = f"{assessed} conversations assessed in {out}, {len(broken)} broken lines left out"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)
    if options.json:
        print(json.dumps({"assessed": assessed, "broken": broken}, ensure_ascii=False))
    return 2 if broken and not assessed else 0


def count_lines(path: Path) -> int | None:
    """Lines of a file, for the progress bar; None where there is none.

    Raises:
        InputError: The file cannot be read.
    """
    from empathy_agent.errors import InputError

    ends, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                ends, last = ends + block.count(b"\n"), block[-1:]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return ends + (last != b"\n")
