"""Builds token sequences with labels from written conversations: which system prompt, which turns carry loss.

Does not train; `chat.py` and `experts.py` do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from empathy_agent.prompts import write_prompt
from empathy_agent.template import encode_chat
from empathy_agent.training.corpus import IGNORED
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from empathy_agent.encoder import Encoder
    from empathy_agent.exemplars import ExemplarIndex

Encoded = dict[str, list[int]]
BEFORE = 5  # turns before the reply of a sequence that teaches one reply


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    learned: Callable[[int], bool],
    longest: int,
    *,
    keep_end: bool = False,
) -> Encoded | None:
    """Encodes a conversation; the contents of turns that `learned` picks by index, and what ends them, carry loss.

    Returns:
        `input_ids` and `labels` of equal length, or None where no label is left. What is longer than `longest` tokens is cut off
        at its end, or behind its first token with `keep_end`.
    """
    ids: list[int] = []
    labels: list[int] = []
    ends = False
    for piece, index in encode_chat(tokenizer, turns, reply_follows=False):
        picked = index is not None and learned(index)
        ids += piece
        if picked:
            labels += piece
        else:
            # The first control token after a learned content is the end of its turn, which the model must learn to write.
            labels += [piece[0] if ends and piece else IGNORED, *[IGNORED] * (len(piece) - 1)][: len(piece)]
        ends = picked
    if len(ids) > longest and keep_end:
        ids, labels = ids[:1] + ids[1 - longest :], labels[:1] + labels[1 - longest :]
    ids, labels = ids[:longest], labels[:longest]
    return {"input_ids": ids, "labels": labels} if any(label != IGNORED for label in labels) else None


class SystemWriter:
    """Writes the system prompt of a training sequence as inference would, with exemplars that suit the reply to be learned.

    Now and then that reply is itself among them: so a model learns to take up what it is shown, as in retrieve-and-refine
    (Weston, Dinan and Miller 2018, arXiv 1808.04776).

    Args:
        encoder: Encodes queries.
        index: The exemplars.
        seed: Seed of what is shown.
        shown: How often a prompt shows `none`, `fitting` exemplars, `given` ones (the reply itself among them) and `other` ones.
    """

    def __init__(self, encoder: Encoder, index: ExemplarIndex, seed: int, shown: Mapping[str, float]):
        self._encoder, self._index, self._rng, self._shown = encoder, index, random.Random(seed), shown

    def write(self, conversation: dict[str, Any], described: float, at: int) -> str:
        """Writes the prompt for the reply that is turn `at`; with probability `described` it describes the expert's pattern."""
        rng = self._rng
        parts = [write_prompt("assistant")]
        if rng.random() < described:
            parts.append(write_prompt(f"pattern_{conversation['expert']}"))
        if (kind := rng.choices([*self._shown], [*self._shown.values()])[0]) != "none":
            parts.append(write_prompt("exemplars", exemplars="\n".join(self._pick(conversation, kind, at))))
        return "\n".join(parts)

    def _pick(self, conversation: dict[str, Any], kind: str, at: int) -> list[str]:
        from empathy_agent.exemplars import build_query

        rng, turns, count = self._rng, conversation["turns"], self._rng.choice((1, 2, 2))
        if kind == "other":
            chosen: list[Any] = rng.sample(self._index.exemplars, count)
        else:
            level = turns[at].get("empathy", {}).get("level", 0.5)
            query = build_query(self._encoder, turns[:at])
            found = self._index.retrieve(query, conversation["task"], level, count + len(turns))
            chosen = [e for e in found if e["id"].rpartition("/")[0] != conversation["id"]][:count]
        if kind == "given":
            given = {"user": turns[at - 1]["content"], "reply": turns[at]["content"]}
            chosen = [given, *chosen[: count - 1]]
            rng.shuffle(chosen)
        return [write_prompt("exemplar", user=e["user"], reply=e["reply"]) for e in chosen]


def build_examples(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[dict[str, Any]],
    learned: Callable[[dict[str, Any], int], bool],
    writer: SystemWriter | None,
    *,
    described: float,
    longest: int,
    one_reply: bool = False,
) -> Iterator[Encoded]:
    """Encodes each conversation once, or once for each reply.

    Args:
        tokenizer: The base's tokenizer.
        conversations: Written conversations, or public ones, which get no system prompt.
        learned: Whether the turn at an index of a conversation carries loss.
        writer: Writes the system prompt for the last turn; None leaves it out.
        described: Share of system prompts that describe the pattern.
        longest: Tokens of a sequence at most.
        one_reply: Whether a sequence ends with the one turn that carries loss, after at most `BEFORE` others. Exemplars suit
            one reply, and an activated adapter acts from its last invocation on.
    """
    if one_reply:
        conversations, learned = list(_end_with_reply(conversations, learned)), _is_last
    for conversation in conversations:
        system = (
            [Turn(role="system", content=writer.write(conversation, described, len(conversation["turns"]) - 1))]
            if writer and "expert" in conversation
            else []
        )
        turns = [Turn(role=turn["role"], content=turn["content"]) for turn in conversation["turns"]]
        for first in range(0, len(turns) if one_reply else 1, 2):
            # Where the sequence is too long its oldest turns are left out, not what the system prompt shows.
            picked = [False] * len(system) + [learned(conversation, index) for index in range(first, len(turns))]
            said = [*system, *turns[first:]]
            example = encode_example(tokenizer, said, picked.__getitem__, longest, keep_end=one_reply)
            if example is None or len(example["input_ids"]) < longest:
                break
        if example:
            yield example


def _end_with_reply(
    conversations: Sequence[dict[str, Any]], learned: Callable[[dict[str, Any], int], bool]
) -> Iterator[dict[str, Any]]:
    for conversation in conversations:
        for index in range(len(conversation["turns"])):
            if learned(conversation, index):
                first = max(0, index - BEFORE) // 2 * 2  # a user's turn
                yield {**conversation, "turns": conversation["turns"][first : index + 1]}


def _is_last(conversation: dict[str, Any], index: int) -> bool:
    return index == len(conversation["turns"]) - 1
