"""`empathy-agent train`: trains base, heads, experts, their preferences or the simulated user; prints what was measured."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError

SETTINGS = Path(__file__).parent.parent / "training" / "settings.toml"


def run(options: argparse.Namespace) -> int:
    """Trains what was asked for."""
    settings = read_tables(Path(options.settings) if options.settings else None)
    out, conversations = Path(options.out), Path(options.conversations)
    data = Path(options.data) if options.data else None
    labels = Path(options.labels) if options.labels else None
    print(f"settings from {options.settings or SETTINGS.name}; conversations from {conversations}; out to {out}")
    found: Any
    if options.what == "base":
        from empathy_agent.training.base import train_base
        from empathy_agent.training.chat import train_chat

        if data is None:
            raise InputError("train base needs --data DIR with public conversations")
        found = train_base(
            data=data,
            conversations=conversations,
            out=out / "stage1",
            minutes=options.minutes,
            settings=settings["base"],
            start=Path(options.start) if options.start else None,
            seed=options.seed,
        )
        found |= train_chat(
            base=out / "stage1",
            conversations=conversations,
            data=data,
            out=out,
            settings=settings["chat"],
            seed=options.seed,
        )
        log = out / "losses.jsonl"  # of both stages, one after the other
        log.write_text((out / "stage1" / log.name).read_text(encoding="utf-8") + log.read_text(encoding="utf-8"))
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
            only=options.only.split(",") if options.only else None,
            seed=options.seed,
        )
    elif options.what == "user":
        from empathy_agent.training.user import train_user

        found = train_user(
            base=options.base, conversations=conversations, out=out, settings=settings["user"], seed=options.seed
        )
    elif options.what == "preference":
        from empathy_agent.content import find_weights
        from empathy_agent.engine import get_encoder
        from empathy_agent.tasks import load_tasks
        from empathy_agent.training.preference import train_preference

        if options.base and not options.adapters:
            raise InputError("train preference needs --adapters DIR with the adapters of that base")
        found = train_preference(
            base=options.base,
            adapters=Path(options.adapters) if options.adapters else find_weights("experts"),
            conversations=conversations,
            out=out,
            tasks=load_tasks(),
            settings=settings["preference"],
            encoder=get_encoder(None),
            experts=options.only.split(",") if options.only else None,
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
            settings=settings["experts"] | ({"activated": True} if options.activated else {}),
            experts=options.only.split(",") if options.only else None,
            four_bit=options.four_bit,
            seed=options.seed,
        )
    print(json.dumps(found, indent=2))
    if options.what == "preference":
        print(write_preferences(found))
    return 0


def write_preferences(found: dict[str, dict[str, float]]) -> str:
    """The pairs of the test split before and after `train preference`, as a table in Markdown."""
    from empathy_agent.evaluation.summary import show, write_table

    rows = []
    for expert, row in found.items():
        before, after = (show(row[f"likelier_{when}"], 1, share=True) for when in ("before", "after"))
        rows.append([expert, "before", "–", "0", before])
        rows.append([expert, "after", show(row["accuracy"], 1, share=True), show(row["margin"], 2), after])
    return write_table(["expert", "", "accuracy", "margin (nats)", "reply likelier per token"], rows)


def read_tables(changes: Path | None) -> dict[str, Any]:
    """The settings of training, with those that a file of the same form changes.

    Raises:
        InputError: The file cannot be read, or names a table or a setting that there is not.
    """
    tables = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    if changes is None:
        return tables
    try:
        changed = tomllib.loads(changes.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {changes} as TOML: {error}") from error
    for table, values in changed.items():
        if not isinstance(values, dict) or table not in tables:
            raise InputError(f"{changes}: no table [{table}]: there are {', '.join(tables)}")
        if unknown := sorted(set(values) - set(tables[table])):
            raise InputError(f"{changes}: [{table}] has no {', '.join(unknown)}: there are {', '.join(tables[table])}")
        weights = {"weights": {**tables[table]["weights"], **values["weights"]}} if "weights" in values else {}
        tables[table] |= values | weights
    return tables
