"""Pairs of a reply and a contrast written for the same turn, and how often a model prefers the reply.

Does not train; `preference.py` does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from operator import eq
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation.expert_losses import sum_losses
from empathy_agent.tasks import Tasks
from empathy_agent.template import encode_chat
from empathy_agent.training.examples import BEFORE, SystemWriter, encode_example
from empathy_agent.training.experts import shows_pattern

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = dict[str, list[dict[str, str]]]  # `prompt`, `chosen` and `rejected`, each a list of messages, as TRL reads them


def list_pairs(
    conversations: list[dict[str, Any]],
    tasks: Tasks,
    expert: str,
    writer: SystemWriter,
    seed: int,
    *,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> list[Pair]:
    """One pair a contrast: the prompt, the reply that suits it, and the contrast.

    A prompt loses its oldest turns, two at a time, until it fits into `longest` tokens with either reply. A pair that never fits
    is left out: a reply that is cut off would teach its beginning only, and one that is cut away nothing.
    """
    pairs = []
    for conversation in conversations:
        for at, turn in enumerate(conversation["turns"]):
            if not turn.get("contrasts") or not shows_pattern(tasks, conversation, at, expert):
                continue
            said = [
                {"role": t["role"], "content": t["content"]} for t in conversation["turns"][max(0, at - BEFORE) : at]
            ]
            system = {"role": "system", "content": writer.write(conversation, 0.0, at)}
            for contrast in turn["contrasts"]:
                chosen, rejected = (
                    [{"role": "assistant", "content": text}] for text in (turn["content"], contrast["content"])
                )
                for first in range(0, len(said), 2):
                    prompt = [system, *said[first:]]
                    if all(_count(tokenizer, [*prompt, *reply]) <= longest for reply in (chosen, rejected)):
                        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
                        break
    random.Random(seed).shuffle(pairs)  # so that a share of them is of all tasks
    return pairs


def _count(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Any]) -> int:
    return sum(len(piece) for piece, _ in encode_chat(tokenizer, turns, reply_follows=False))


def measure_likelier(model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], longest: int) -> float:
    """Share of pairs whose reply the model finds likelier per token than its contrast, in [0, 1].

    Unlike the accuracy of DPO it needs no reference, so that it can be measured before training.
    """
    import torch

    encoded = []
    for number, pair in enumerate(pairs):
        for side, reply in enumerate((pair["chosen"], pair["rejected"])):
            turns: list[Any] = [*pair["prompt"], *reply]
            example = encode_example(tokenizer, turns, partial(eq, len(turns) - 1), longest)
            assert example is not None  # `list_pairs` left out what does not fit
            encoded.append((2 * number + side, example))
    model.eval()
    with torch.no_grad():
        nats, tokens = sum_losses(model, encoded, 2 * len(pairs))
    chosen, rejected = (nats / tokens).reshape(-1, 2).T
    return float((chosen < rejected).mean())
