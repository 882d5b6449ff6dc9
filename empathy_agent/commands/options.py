"""Options of `simulate` and `evaluate`, and those that commands share; apart from the work, so that `--help` is instant."""

from __future__ import annotations

import argparse


def add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate`."""
    evaluate.add_argument(
        "--scenarios",
        nargs="+",
        metavar="F.jsonl",
        help='lines of {"id", "task", "turns"}, whole conversations, or personas',
    )
    evaluate.add_argument(
        "--systems",
        default="base,prompt,experts",
        metavar="A,B",
        help="base, prompt, experts, recorded, NAME=module:graph or NAME=provider:model (default: %(default)s)",
    )
    evaluate.add_argument("--out", required=True, metavar="DIR", help="report.json, report.md, report.html and records")
    evaluate.add_argument(
        "--transcripts", metavar="F.md", help="also write the conversations of the last of --systems, to be read"
    )
    evaluate.add_argument("--records", metavar="DIR", help="make the report of records, and play nothing")
    evaluate.add_argument("--ablations", metavar="A,B|all", help="also play experts with one part left out")
    evaluate.add_argument("--turns", type=int, metavar="N", help="user turns at most (default: all, 10 of a persona)")
    evaluate.add_argument(
        "--patient", action="store_true", help="users stay for all turns, however content or lost they are"
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="conversations at most, spread over the files")
    evaluate.add_argument("--split", metavar="NAME", help="only lines of this split")
    evaluate.add_argument(
        "--seed", type=int, metavar="N", help="of sessions, resamples and tests (default: 0, of --records their own)"
    )
    evaluate.add_argument("--concurrency", type=int, default=32, metavar="N", help="sessions at once (default: 32)")
    evaluate.add_argument(
        "--desired",
        choices=("task", "need"),
        default="task",
        help="desired empathy: the task's level, or moved by need",
    )
    evaluate.add_argument("--tasks", metavar="F.toml", help="a task table of your own")
    evaluate.add_argument(
        "--judge", metavar="DIR", help="heads of an independent learned judge (default: the shipped check)"
    )
    evaluate.add_argument("--judge-model", metavar="PROVIDER:MODEL", help="a generative judge beside the learned one")
    _add_users(evaluate)
    add_engine(evaluate)
    add_settings(evaluate)


def add_simulate(simulate: argparse.ArgumentParser) -> None:
    """Adds the options of `simulate`."""
    simulate.add_argument(
        "--personas", required=True, metavar="F.jsonl", help="who they are, as conversations/personas.jsonl"
    )
    simulate.add_argument("--sessions", type=int, metavar="N", help="default: one for each persona")
    simulate.add_argument(
        "--turns", type=int, default=10, metavar="T", help="user turns at most (default: %(default)s)"
    )
    simulate.add_argument(
        "--patient", action="store_true", help="users stay for all turns, however content or lost they are"
    )
    simulate.add_argument(
        "--out", required=True, metavar="F.jsonl", help="one record a line, written as sessions finish"
    )
    simulate.add_argument("--task", default="", metavar="A,B", help="only personas of these tasks")
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument(
        "--concurrency", type=int, default=32, metavar="N", help="sessions in flight (default: %(default)s)"
    )
    _add_users(simulate)
    simulate.add_argument("--ray", metavar="ADDRESS", help="play them on a Ray cluster; `local` starts one here")
    simulate.add_argument("--ray-cpus", type=float, metavar="N", help="processors of an actor (default: 2)")
    add_engine(simulate)
    add_settings(simulate)
    simulate.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def _add_users(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user-model",
        default="local",
        metavar="PROVIDER:MODEL",
        help="chat model that plays the personas, as LangChain names it (default: the local adapter `user`)",
    )
    parser.add_argument(
        "--users",
        metavar="SOURCE",
        help="plays them instead: module:attribute or file.py:attribute, a function in openevals' shape or a list of lines; "
        "or a .txt of lines",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting, such as temperature=0; repeatable",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds what names the models that write replies."""
    parser.add_argument(
        "--model", metavar="M", help="folder or hub id of a causal language model (default: empathy-nano)"
    )
    parser.add_argument(
        "--adapters", metavar="DIR", help="folder with one LoRA adapter per expert, trained on that model"
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="OpenAI-compatible server that serves --model and the experts by name"
    )
    parser.add_argument(
        "--served-as",
        action="append",
        default=[],
        metavar="EXPERT=NAME",
        help="name under which that server serves an expert, where it is not the expert's own; repeatable",
    )
