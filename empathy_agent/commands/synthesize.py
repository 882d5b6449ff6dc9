"""`empathy-agent synthesize`: holds conversations to the gates (`check`), or makes more with any chat model (`write`)."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.commands.gates import print_rows
from empathy_agent.errors import EmpathyAgentError, InputError, MissingExtraError
from empathy_agent.synthesis.limits import GateRow, Limits

if TYPE_CHECKING:
    from rich.progress import Progress

    from empathy_agent.encoder import Encoder
    from empathy_agent.synthesis.corpus import Corpus


def run(options: argparse.Namespace) -> int:
    """Checks or writes."""
    return check(options) if options.what == "check" else write(options)


def check(options: argparse.Namespace) -> int:
    """Prints the table of the gates; exit code 1 where one does not pass."""
    from rich.console import Console

    from empathy_agent.content import find_content
    from empathy_agent.synthesis.checking import check_corpus
    from empathy_agent.synthesis.corpus import read_corpus
    from empathy_agent.tasks import load_tasks

    exemplars = Path(options.exemplars) if options.exemplars else find_content("retrieval/exemplars")
    corpus = read_corpus(Path(options.conversations), exemplars)
    limits = Limits() if options.least is None else Limits(conversations=options.least)
    with show_progress() as progress:
        rows = check_corpus(corpus, encode(corpus, progress), load_tasks(), limits)
    passed = all(row.passed is not False for row in rows)
    if options.json:
        print(json.dumps({"passed": passed, "gates": [asdict(row) for row in rows]}, ensure_ascii=False, indent=2))
    else:
        print_rows(Console(), rows)
    return 0 if passed else 1


def write(options: argparse.Namespace) -> int:
    """Makes conversations; exit code 1 where some that were asked for are missing."""
    from rich.console import Console

    from empathy_agent.content import find_content
    from empathy_agent.synthesis.corpus import read_corpus, read_rows
    from empathy_agent.synthesis.writing import synthesize_conversations

    folder = Path(options.conversations)
    given = folder.is_dir() and any(folder.glob("*.jsonl"))
    corpus = read_corpus(folder if given else None, find_content("retrieval/exemplars"))
    personas = read_rows(Path(options.personas)) if options.personas else corpus.singles.get("personas", [])
    if not personas:
        raise InputError(
            f"no personas.jsonl in {folder}: give --personas FILE, as conversations/personas.jsonl of the repository"
        )
    if Path(options.out).resolve() == folder.resolve():
        raise InputError(f"--out is the folder that new conversations are compared to ({folder}): name another")
    chat_model = load_chat_model(options.chat_model)
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    with show_progress() as progress:
        encoder = encode(corpus, progress)
        bar = progress.add_task("conversations", total=len(set(names)) * options.count)

        def show(plan: Any, reasons: list[str]) -> None:
            progress.advance(bar)
            if reasons:
                progress.console.print(f"{plan.id} dropped: {'; '.join(reasons)}", markup=False, highlight=False)

        report = synthesize_conversations(
            chat_model,
            tasks=names,
            count=options.count,
            out=Path(options.out),
            personas=personas,
            seed=options.seed,
            corpus=corpus,
            encoder=encoder,
            on_done=show,
        )
    console = Console()
    print_rows(console, [GateRow(**row) for row in report["gates"]])
    print(
        f"{report['kept']} kept in {options.out} ({report['skipped']} of them before), {len(report['missing'])} missing"
    )
    print(f"{len(report['dropped'])} answers dropped; reasons in {Path(options.out) / 'report.json'}")
    print(
        "\n".join(f"  {name:40} {count:4}" for name, count in report["reasons"].items()),
        end="\n" * bool(report["reasons"]),
    )
    return 1 if report["missing"] else 0


def load_chat_model(name: str, option: str = "--chat-model") -> Any:
    """A chat model by `provider:model`, through LangChain; errors name the command's `option`.

    Raises:
        MissingExtraError: LangChain, or its package for the provider, is not installed.
        InputError: There is no such provider, or it refuses what it was given, such as a missing key.
    """
    if not all(name.partition(":")):
        raise InputError(f"{option} is {name!r}: write it as PROVIDER:MODEL, such as ollama:llama3.1")
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError(f'{option} needs LangChain: pip install "empathy-agent[langchain]"') from error
    try:
        return init_chat_model(name)
    except ImportError as error:
        raise MissingExtraError(f"{option} {name}: {error}") from error
    except EmpathyAgentError:
        raise
    except Exception as error:  # every provider has errors of its own
        raise InputError(f"{option} {name}: {error}") from error


def show_progress() -> Progress:
    """A progress bar on stderr, silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())


def encode(corpus: Corpus, progress: Progress) -> Encoder:
    """Encodes a corpus under a progress bar and returns the encoder that remembers it."""
    from empathy_agent.encoder import Encoder
    from empathy_agent.synthesis.corpus import encode_corpus, list_texts

    encoder = Encoder(remembered=100_000)
    bar = progress.add_task("encoding", total=len(list_texts(corpus)))
    encode_corpus(corpus, encoder, lambda done: progress.advance(bar, done))
    return encoder
