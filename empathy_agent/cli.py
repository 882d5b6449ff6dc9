"""The command line `empathy-agent`. Only the parser lives here, so that `--help` is instant; the work is in `commands/`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from importlib import import_module

from empathy_agent import __version__
from empathy_agent.errors import EmpathyAgentError, InputError


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="empathy-agent", description="The right amount of empathy for what the user is doing."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    chat = commands.add_parser("chat", help="talk with the agent and watch what it reads and aims at")
    chat.add_argument("--once", metavar="TEXT", help="answer one message and leave")
    chat.add_argument("--thread", metavar="ID", help="go on with a conversation, or name a new one")
    chat.add_argument("--json", action="store_true", help="print one JSON object per reply")
    _add_engine(chat)
    chat.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting, such as temperature=0; repeatable",
    )

    assess = commands.add_parser("assess", help="annotate conversations with task, need, emotion, safety and empathy")
    assess.add_argument(
        "--in", dest="source", required=True, metavar="F.jsonl", help='lines of {"id", "turns": [{"role", "content"}]}'
    )
    assess.add_argument("--out", required=True, metavar="G.jsonl", help="the same lines, annotated, in the same order")

    index = commands.add_parser("index", help="build the index of exemplars and show where it is kept")
    index.add_argument("--exemplars", metavar="DIR", help="a folder of your own exemplars")
    index.add_argument("--json", action="store_true")

    doctor = commands.add_parser("doctor", help="show what is installed, which models are found, what would be used")
    _add_engine(doctor)
    doctor.add_argument("--json", action="store_true")

    forget = commands.add_parser("forget", help="delete a conversation and prove it")
    forget.add_argument("--thread", required=True, metavar="ID")
    forget.add_argument("--json", action="store_true")

    synthesize = commands.add_parser(
        "synthesize", help="hold conversations to the gates, or make more with a chat model"
    )
    what = synthesize.add_subparsers(dest="what", required=True, metavar="check|write")
    check = what.add_parser("check", help="print the table of the gates; exit code 1 where one does not pass")
    check.add_argument("--exemplars", metavar="DIR", help="a folder of your own exemplars")
    check.add_argument("--least", type=int, metavar="N", help="conversations wanted per task (default: 150)")
    check.add_argument("--json", action="store_true")
    write = what.add_parser("write", help="make conversations with any chat model; run it again to go on")
    write.add_argument("--chat-model", required=True, metavar="PROVIDER:MODEL", help="as LangChain names it")
    write.add_argument("--tasks", required=True, metavar="A,B", help="names of tasks")
    write.add_argument("--count", type=int, required=True, metavar="N", help="conversations of each task")
    write.add_argument("--out", required=True, metavar="DIR", help="one file per task and report.json")
    write.add_argument("--personas", metavar="F.jsonl", help="default: personas.jsonl of --conversations")
    write.add_argument("--seed", type=int, default=0)
    for part in (check, write):
        part.add_argument(
            "--conversations",
            default="conversations",
            metavar="DIR",
            help="conversations there are (default: %(default)s)",
        )

    train = commands.add_parser("train", help="train the base, the heads or the experts")
    train.add_argument("what", choices=("base", "heads", "experts"))
    train.add_argument(
        "--conversations", default="conversations", metavar="DIR", help="written conversations (default: %(default)s)"
    )
    train.add_argument("--data", metavar="DIR", help="public conversations")
    train.add_argument("--labels", metavar="DIR", help="public labelled texts, for the heads")
    train.add_argument(
        "--base", metavar="M", help="folder or hub id of the base, for the experts (default: empathy-nano)"
    )
    train.add_argument("--only", metavar="A,B", help="names of the experts to train (default: all)")
    train.add_argument("--out", required=True, metavar="DIR")
    train.add_argument("--minutes", type=float, default=75, help="time budget of the base (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="M", help="folder or hub id of a causal language model (default: empathy-nano)"
    )
    parser.add_argument(
        "--adapters", metavar="DIR", help="folder with one LoRA adapter per expert, trained on that model"
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="OpenAI-compatible server that serves --model and the experts by name"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = build_parser().parse_args(arguments)
    # Progress bars of the libraries would write between the lines of a conversation.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        return int(import_module(f"empathy_agent.commands.{options.command}").run(options) or 0)
    except InputError as error:
        print(f"empathy-agent: {error}", file=sys.stderr)
        return 2
    except EmpathyAgentError as error:
        print(f"empathy-agent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
