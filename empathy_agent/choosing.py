"""Chooses among candidates of one reply: nearest its target by the judge, on topic, honest and whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from empathy_agent.judge import build_features, read_assessment
from empathy_agent.measures import measure_gap
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    from empathy_agent.encoder import Encoder
    from empathy_agent.heads import Head
    from empathy_agent.state import Assessment

TOPIC_WEIGHT = 0.3  # cost of a reply that has nothing to do with the conversation, in levels
REPETITION_WEIGHT = 0.5  # cost of a reply that says the same words over and over, or what was said before
FLUENCY_WEIGHT = 0.15  # cost of one nat a token that the model itself finds a reply less likely
UNFINISHED = 0.15  # cost of a reply that was cut off
SAME_OPENING = 0.1  # cost of a reply that begins with the same words as one of the last
RECENT = 4  # turns that a reply is to be about


def measure_miss(assessment: Assessment, target: float) -> float:
    """How far a reply is from its target; a dishonest one is farther than any other.

    >>> measure_miss({"level": 0.3, "violations": []}, 0.5), measure_miss({"level": 0.5, "violations": ["feels"]}, 0.5)
    (0.2, 1.0)
    """
    return round(abs(measure_gap(assessment["level"], target)) + len(assessment.get("violations", [])), 4)


def measure_repetition(reply: str, said: Sequence[str]) -> float:
    """Share of a reply's word pairs that it repeats itself or that an earlier reply held already, in [0, 1].

    >>> measure_repetition("a good film a good film", [])
    0.4
    >>> measure_repetition("a good film", ["it is a good film"])
    1.0
    """
    words = [text.lower().split() for text in (reply, *said)]
    pairs, *earlier = [list(pairwise(row)) for row in words]
    known = {pair for row in earlier for pair in row}
    fresh = {pair for pair in pairs if pair not in known}
    return round(1 - len(fresh) / len(pairs), 4) if pairs else 0.0


def repeats_opening(reply: str, said: Sequence[str], words: int = 3) -> bool:
    """Whether a reply begins with the same words as an earlier one.

    >>> repeats_opening("It makes sense that", ["Yes.", "It makes sense to rest."])
    True
    """
    opening = reply.lower().split()[:words]
    return len(opening) == words and any(text.lower().split()[:words] == opening for text in said)


def measure_costs(
    head: Head,
    encoder: Encoder,
    turns: Sequence[Turn],
    replies: Sequence[str],
    finished: Sequence[bool],
    logprobs: Sequence[float],
    target: float,
) -> list[float]:
    """The cost of each candidate, in levels of empathy: its miss, and what being off topic, repetitive, odd or cut off adds.

    The weights are ours. Topic is the cosine of the reply to the last turns.

    Args:
        head: The judge's.
        encoder: The judge's.
        turns: The conversation up to the user's message.
        replies: Candidates, at least one.
        finished: Whether each candidate came to its end by itself.
        logprobs: How likely the model that wrote each finds it, in nats a token.
        target: Level wanted, in [0, 1].
    """
    import numpy as np

    features = np.stack([build_features(encoder, turns, reply) for reply in replies])
    assessments = read_assessment(head, features, list(replies))
    about = encoder.encode(["\n".join(turn["content"] for turn in turns[-RECENT:]), *replies])
    topics = about[1:] @ about[0]
    said = list_texts(turns, "assistant")[-RECENT:]
    return [
        measure_miss(assessment, target)
        + TOPIC_WEIGHT * (1 - float(topic))
        + REPETITION_WEIGHT * measure_repetition(reply, said)
        + SAME_OPENING * repeats_opening(reply, said)
        + UNFINISHED * (not whole)
        - FLUENCY_WEIGHT * logprob
        for reply, assessment, topic, whole, logprob in zip(
            replies, assessments, topics, finished, logprobs, strict=True
        )
    ]
