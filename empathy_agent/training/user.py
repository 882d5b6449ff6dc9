"""Trains the `user` adapter, which plays simulated users: the written conversations seen from the other side."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from empathy_agent.models import load_base
from empathy_agent.simulation.personas import ADAPTER, show_other_side
from empathy_agent.training.corpus import list_conversations
from empathy_agent.training.examples import encode_example
from empathy_agent.training.tuning import tune_adapter


def train_user(
    *, base: str | None, conversations: Path, out: Path, settings: dict[str, Any], seed: int = 0
) -> dict[str, float]:
    """Trains the adapter on the user turns of some conversations and saves it under `out/user`.

    Arguments are those of `experts.train_experts`.

    Returns:
        Loss on the user turns of the dev split before and after, in nats a token.
    """
    model, tokenizer = load_base(base)
    rows: dict[str, list[Any]] = {"train": [], "dev": [], "test": []}
    for conversation in list_conversations(conversations):
        rows[conversation["split"]].append(conversation)
    random.Random(seed).shuffle(rows["train"])
    train, dev = (
        [e for c in chosen if (e := encode_user(tokenizer, c, settings["longest"])) is not None]
        for chosen in (rows["train"][: settings["most"]], rows["dev"])
    )
    return tune_adapter(model, tokenizer, train, dev, settings, out / ADAPTER, seed, base=base)


def encode_user(tokenizer: Any, conversation: dict[str, Any], longest: int) -> dict[str, list[int]] | None:
    """Encodes a conversation with its roles swapped, as a simulated user sees it; the user's turns carry loss."""
    persona = {"who": conversation.get("persona", "a person"), "wants": conversation["theme"]}
    turns = show_other_side(persona, conversation["turns"])
    return encode_example(tokenizer, turns, lambda index: turns[index]["role"] == "assistant", longest)
