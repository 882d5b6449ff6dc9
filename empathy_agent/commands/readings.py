"""`empathy-agent evaluate readings`: measures task, need, judge and crisis screen on what they were not trained on."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

MEASURED = ("torch", "sentence-transformers", "numpy")


def run(options: argparse.Namespace) -> int:
    """Measures, writes the report and prints its tables."""
    from empathy_agent.commands.synthesize import load_chat_model
    from empathy_agent.content import find_weights
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.errors import InputError
    from empathy_agent.evaluation.reading_tables import write_report, write_tables
    from empathy_agent.evaluation.readings import measure_readings

    folders = {name: getattr(options, name) for name in ("conversations", "data", "labels", "unseen", "heads")}
    paths = {name: Path(given) if given else None for name, given in folders.items()}
    for path in paths.values():
        if path and not path.is_dir():
            raise InputError(f"no folder {path}: name one, or leave the option out")
    began = time.monotonic()

    def show(step: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {step}", file=sys.stderr, flush=True)

    heads = paths.pop("heads") or find_weights("heads")
    conversations = paths.pop("conversations")
    assert conversations is not None
    if options.pairs < 1:
        raise InputError(f"--pairs is {options.pairs}: it must be at least 1")
    chat_model = load_chat_model(options.chat_model) if options.chat_model else None
    found = measure_readings(
        EmpathyEngine(heads=heads),
        conversations=conversations,
        **paths,
        seed=options.seed,
        chat_model=chat_model,
        pairs=options.pairs,
        on_step=show,
    )
    report = {"command": name_command(options), "versions": list_versions(heads)} | found
    try:
        files = write_report(report, Path(options.out))
    except OSError as error:
        raise InputError(f"cannot write into {options.out}: {error}") from error
    print(json.dumps(report, ensure_ascii=False) if options.json else write_tables(report))
    show("written to " + ", ".join(map(str, files)))
    return 0


def name_command(options: argparse.Namespace) -> str:
    """The command line that makes the same report again."""
    given = {"--conversations": options.conversations, "--data": options.data, "--labels": options.labels}
    given |= {"--eval": options.unseen, "--heads": options.heads, "--out": options.out, "--seed": str(options.seed)}
    if options.chat_model:
        given |= {"--chat-model": options.chat_model, "--pairs": str(options.pairs)}
    words = [word for name, value in given.items() if value for word in (name, value)]
    return shlex.join(["empathy-agent", "evaluate", "readings", *words])


def list_versions(heads: Path) -> dict[str, str]:
    """Versions of what computes the figures, and a hash of the heads that they are figures of."""
    from empathy_agent import __version__

    digest = hashlib.sha256()
    for path in sorted(heads.rglob("*.safetensors")):
        digest.update(path.relative_to(heads).as_posix().encode() + path.read_bytes())
    known = {"empathy-agent": __version__, "python": platform.python_version()}
    return known | {name: version(name) for name in MEASURED} | {"heads_sha256": digest.hexdigest()[:16]}
