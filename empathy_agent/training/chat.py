"""Stage 2: teaches the base to answer as an assistant, on the written conversations mixed with public ones.

Afterwards *base* answers without a pattern and *prompt* follows one that the system prompt describes. The experts come next.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from empathy_agent.models import load_base
from empathy_agent.training.corpus import list_conversations, pick_half, read_conversations
from empathy_agent.training.examples import SystemWriter, build_examples
from empathy_agent.training.tuning import tune

PUBLIC = (
    "empatheticdialogues",
    "cucom_ecommerce",
    "dolly_open_qa",
    "redial_valtest",
    "oasst_en100",
    "chitchat_personas",
)


def train_chat(
    *, base: Path, conversations: Path, data: Path | None, out: Path, settings: dict[str, Any], seed: int = 0
) -> dict[str, float]:
    """Trains every weight of `base` on assistant turns and saves the model under `out`.

    Args:
        base: Folder of the base from stage 1.
        conversations: Folder of the written conversations; the half of their train split that `settings["half"]` names is read
            `settings["passes"]` times, each time under another system prompt.
        data: Folder of public conversations, of which `settings["public"]` are mixed in, or None.
        out: Folder of the chat model.
        settings: The `[chat]` table of `settings.toml`.
        seed: Seed of system prompts, mixture and order.

    Returns:
        Loss on the dev split's assistant turns before and after, in nats a token.
    """
    from empathy_agent.encoder import Encoder
    from empathy_agent.exemplars import build_index

    rng = random.Random(seed)
    model, tokenizer = load_base(str(base))
    encoder = Encoder(remembered=100_000)
    writer = SystemWriter(encoder, build_index(encoder), seed, settings["shown"])
    written = list_conversations(conversations)
    # The experts read both halves: what they add to the base is then more than what it has read already.
    train = [c for c in written if c["split"] == "train" and pick_half(c["id"]) == settings["half"]]

    def learned(conversation: dict[str, Any], index: int) -> bool:
        return conversation["turns"][index]["role"] == "assistant"

    arguments: dict[str, Any] = {"described": settings["described"], "longest": settings["longest"], "one_reply": True}
    examples = [
        example
        for _ in range(settings["passes"])
        for example in build_examples(tokenizer, train, learned, writer, **arguments)
    ]
    if data:
        public = [c for name in PUBLIC for c in read_conversations(data / f"{name}.jsonl")]
        public = rng.sample(public, min(settings["public"], len(public)))
        examples += build_examples(tokenizer, public, learned, None, **arguments)
    rng.shuffle(examples)
    kept = [c for c in written if c["split"] == "dev"]
    dev = list(build_examples(tokenizer, kept, learned, None, **arguments))
    losses = tune(model.float(), tokenizer, examples, dev, settings, out / "checkpoints", seed)
    import torch

    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses
