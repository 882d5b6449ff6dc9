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
from empathy_agent.commands.options import add_engine, add_evaluate, add_settings, add_simulate
from empathy_agent.errors import EmpathyAgentError, InputError
from empathy_agent.turns import clean_text

MEASURED = (["evaluate", "readings"], ["evaluate", "experts"])  # commands of two words


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
    add_engine(chat)
    chat.add_argument(
        "--fallback", action="store_true", help="let the shipped experts answer while the server of --base-url does not"
    )
    _add_database(chat)
    add_settings(chat)

    assess = commands.add_parser("assess", help="annotate conversations with task, need, emotion, safety and empathy")
    assess.add_argument(
        "--in", dest="source", required=True, metavar="F.jsonl", help='lines of {"id", "turns": [{"role", "content"}]}'
    )
    assess.add_argument("--out", required=True, metavar="G.jsonl", help="the same lines, annotated, in the same order")
    assess.add_argument("--json", action="store_true", help="print how many were assessed, and every broken line")

    _add_readings(
        commands.add_parser(
            "readings", help="measure the readings on what they were not trained on (also as `evaluate readings`)"
        )
    )

    experts = commands.add_parser("experts", help="measure the expert adapters alone (also as `evaluate experts`)")
    _add_conversations(experts)
    experts.add_argument("--split", metavar="NAME", help="which of them (default: test, with --grid dev)")
    experts.add_argument("--grid", nargs="*", metavar="NAME=A,B", help="sweep decoding, name the best for each expert")
    experts.add_argument("--limit", type=int, metavar="N", help="so many of them, spread evenly")
    experts.add_argument("--model", metavar="M", help="folder or hub id of the base (default: empathy-nano)")
    experts.add_argument("--adapters", metavar="DIR", help="folder with one LoRA adapter per expert")
    experts.add_argument("--candidates", type=int, default=4, metavar="N", help="n of best of n (default: %(default)s)")
    experts.add_argument("--judge", metavar="DIR", help="heads of an independent judge (default: the shipped check)")
    experts.add_argument(
        "--out", required=True, metavar="DIR", help="experts.json, .md, replies.jsonl; or grid.json, .md"
    )
    experts.add_argument("--seed", type=int, default=0)
    experts.add_argument("--json", action="store_true", help="print the report as JSON")

    add_evaluate(commands.add_parser("evaluate", help="compare systems over scripted or simulated users"))

    calibrate = commands.add_parser("calibrate", help="task levels and the judge's agreement from people's ratings")
    calibrate.add_argument("--in", dest="source", required=True, metavar="F", help="workbook or CSV in SENSE-7's shape")
    calibrate.add_argument("--messages", metavar="F.csv", help="rated turns, where --in is CSV")
    calibrate.add_argument("--name", action="append", default=[], metavar="CHOICE=TASK", help="repeatable")
    calibrate.add_argument("--tasks", metavar="F.toml", help="the task table to start from (default: the shipped one)")
    calibrate.add_argument("--out", required=True, metavar="DIR", help="tasks.toml and calibration.json")
    calibrate.add_argument("--seed", type=int, default=0)

    index = commands.add_parser("index", help="build the index of exemplars and show where it is kept")
    index.add_argument("--exemplars", metavar="DIR", help="a folder of your own exemplars")
    index.add_argument("--json", action="store_true")

    doctor = commands.add_parser("doctor", help="show what is installed, which models are found, what would be used")
    add_engine(doctor)
    doctor.add_argument("--json", action="store_true")

    forget = commands.add_parser("forget", help="delete a conversation and prove it")
    forget.add_argument("--thread", required=True, metavar="ID")
    forget.add_argument("--json", action="store_true")
    _add_database(forget)

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
        _add_conversations(part)

    add_simulate(commands.add_parser("simulate", help="let simulated users talk with the agent; run it again to go on"))

    train = commands.add_parser(
        "train", help="train the base, the heads, the experts, their preferences or the simulated user"
    )
    train.add_argument("what", choices=("base", "heads", "experts", "preference", "user"))
    _add_conversations(train)
    train.add_argument("--data", metavar="DIR", help="public conversations")
    train.add_argument("--labels", metavar="DIR", help="public labelled texts, for the heads")
    train.add_argument(
        "--base", metavar="M", help="folder or hub id of the base, for the experts (default: empathy-nano)"
    )
    train.add_argument("--adapters", metavar="DIR", help="adapters that train preference starts from")
    train.add_argument("--only", metavar="A,B", help="names of the experts, or of the heads, to train (default: all)")
    train.add_argument(
        "--activated", action="store_true", help="experts as activated LoRA: a change of expert reads nothing again"
    )
    train.add_argument(
        "--four-bit", action="store_true", help="hold the experts' base in 4 bits (extra `four-bit`, GPU)"
    )
    train.add_argument("--settings", metavar="F.toml", help="change settings of training/settings.toml")
    train.add_argument("--out", required=True, metavar="DIR")
    train.add_argument("--minutes", type=float, default=75, help="time budget of the base (default: %(default)s)")
    train.add_argument("--start", metavar="DIR", help="folder of an earlier base that train base goes on from")
    train.add_argument("--seed", type=int, default=0)
    return parser


def _add_conversations(parser: argparse.ArgumentParser) -> None:
    text = "written conversations (default: %(default)s)"
    parser.add_argument("--conversations", default="conversations", metavar="DIR", help=text)


def _add_readings(parser: argparse.ArgumentParser) -> None:
    _add_conversations(parser)
    parser.add_argument("--data", metavar="DIR", help="public conversations, for real people's first messages")
    parser.add_argument("--labels", metavar="DIR", help="public labelled texts, for chats that people rated")
    parser.add_argument("--eval", dest="unseen", metavar="DIR", help="public texts that nothing is trained on")
    parser.add_argument("--heads", metavar="DIR", help="heads to measure (default: the shipped ones)")
    parser.add_argument("--chat-model", metavar="PROVIDER:MODEL", help="measure this model as a judge, too")
    parser.add_argument(
        "--pairs", type=int, default=50, metavar="N", help="pairs of replies that it judges (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="readings.json, readings.md, calibration.svg")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        metavar="D",
        help="where threads are kept: a SQLite file or postgresql://… (default: EMPATHY_AGENT_DATABASE, else your data folder)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(given[1:] if given[:2] in MEASURED else given)
    options.given = sys.argv[1:] if arguments is None else arguments
    # Progress bars of the libraries would write between the lines of a conversation.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Tracing that was switched on for another program must not send this one's conversations.
    for name in ("LANGSMITH_HIDE_INPUTS", "LANGSMITH_HIDE_OUTPUTS"):
        os.environ.setdefault(name, "true")
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        if (thread := getattr(options, "thread", None)) and thread != clean_text(thread):
            raise InputError(
                "--thread holds control characters: name the conversation with characters that can be read"
            )
        return int(import_module(f"empathy_agent.commands.{options.command}").run(options) or 0)
    except InputError as error:
        print(clean_text(f"empathy-agent: {error}"), file=sys.stderr)
        return 2
    except EmpathyAgentError as error:
        print(clean_text(f"empathy-agent: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
