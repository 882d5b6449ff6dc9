"""`empathy-agent train`: trains the base with its chat stage, the heads, or the experts, and prints what was measured."""

from __future__ import annotations

import argparse
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError

SETTINGS = Path(__file__).parent.parent / "training" / "settings.toml"


def run(options: argparse.Namespace) -> int:
    """Trains what was asked for."""
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    out, conversations = Path(options.out), Path(options.conversations)
    data = Path(options.data) if options.data else None
    labels = Path(options.labels) if options.labels else None
    print(f"settings from {SETTINGS.name}; conversations from {conversations}; out to {out}")
    found: Any
    if options.what == "base":
        from empathy_agent.training.base import train_base
        from empathy_agent.training.chat import train_chat

        if data is None:
            raise InputError("train base needs --data DIR with public conversations")
        found = train_base(
            data=[data], out=out / "stage1", minutes=options.minutes, settings=settings["base"], seed=options.seed
        )
        found |= train_chat(
            base=out / "stage1",
            conversations=conversations,
            data=data,
            out=out,
            settings=settings["chat"],
            seed=options.seed,
        )
        shutil.copy(out / "stage1" / "losses.jsonl", out)
    elif options.what == "heads":
        from empathy_agent.tasks import load_tasks
        from empathy_agent.training.heads import train_heads

        found = train_heads(
            conversations=conversations,
            data=data,
            labels=labels,
            out=out,
            tasks=list(load_tasks().profiles),
            settings=settings["adapter"],
            seed=options.seed,
        )
    else:
        from empathy_agent.tasks import load_tasks
        from empathy_agent.training.experts import train_experts

        found = train_experts(
            base=options.base,
            conversations=conversations,
            out=out,
            tasks=load_tasks(),
            settings=settings["experts"],
            experts=options.only.split(",") if options.only else None,
            seed=options.seed,
        )
    print(json.dumps(found, indent=2))
    return 0
