"""Runs every gate over a corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from empathy_agent.synthesis import gates, likeness, schema, singles, wording
from empathy_agent.synthesis.corpus import Corpus
from empathy_agent.synthesis.limits import GateRow, Limits
from empathy_agent.tasks import Tasks

if TYPE_CHECKING:
    from empathy_agent.encoder import Encoder

Row = dict[str, Any]


def check_corpus(corpus: Corpus, encoder: Encoder, tasks: Tasks, limits: Limits | None = None) -> list[GateRow]:
    """Runs every gate over a corpus.

    A line of wrong schema fails that gate and is left out of the others.

    Returns:
        One row or more per gate; the corpus passes when no row's `passed` is False.
    """
    limits, rows = limits or Limits(), []
    good, found = singles.check_schema(corpus.conversations, "conversations", schema.find_conversation_faults, tasks)
    rows += found
    rows += check_conversations(good, encoder, tasks, limits)
    exemplars, found = singles.check_schema(corpus.exemplars, "exemplars", schema.find_exemplar_faults, tasks)
    rows += found + singles.check_exemplar_counts(exemplars, limits, tasks)
    replies = list(gates.list_replies(good))
    rows += likeness.check_copies(
        [row["id"] for row in exemplars],
        encoder.encode([row["reply"] for row in exemplars]),
        [place for place, _ in replies],
        encoder.encode([turn["content"] for _, turn in replies]),
        limits,
    )
    rows += wording.check_honesty([(row["id"], row["reply"]) for row in exemplars], "exemplars")
    return rows + check_singles(corpus, tasks, limits)


def check_conversations(good: list[Row], encoder: Encoder, tasks: Tasks, limits: Limits) -> list[GateRow]:
    """Runs the gates of the conversations, all of good schema."""
    replies = [(place, turn["content"]) for place, turn in gates.list_replies(good)]
    return [
        *gates.check_roles(good),
        *gates.check_lengths(good),
        *gates.check_counts(good, limits, schema.list_tasks(tasks)),
        *gates.check_split(good),
        *gates.check_test_share(good, limits),
        *likeness.check_replies([place for place, _ in replies], encoder.encode([text for _, text in replies]), limits),
        *likeness.check_conversations([row["id"] for row in good], embed_all(encoder, good), limits),
        *wording.check_openings(good, limits),
        *wording.check_distinct(good, limits),
        *gates.check_levels(good, limits, tasks),
        *gates.check_contrasted(good, limits),
        *gates.check_contrast_sides(good, limits),
        *wording.check_honesty(replies, "conversations"),
    ]


def embed_all(encoder: Encoder, conversations: list[Row]) -> Any:
    """Embeddings of whole conversations, shape (len(conversations), 2 * dimension)."""
    import numpy as np

    rows = [likeness.embed_conversation(encoder, conversation) for conversation in conversations]
    return np.stack(rows) if rows else np.zeros((0, 2 * encoder.dimension), dtype=np.float32)


def check_singles(corpus: Corpus, tasks: Tasks, limits: Limits) -> list[GateRow]:
    """Runs the gates of personas, unknown and screening."""
    rows: list[GateRow] = []
    for name, find in (
        ("personas", schema.find_persona_faults),
        ("unknown", schema.find_unknown_faults),
        ("screening", schema.find_screening_faults),
    ):
        good, found = singles.check_schema(corpus.singles.get(name, []), name, find, tasks)
        rows += found + singles.check_count(good, name, getattr(limits, name))
        rows += singles.check_texts(good, name) if name != "personas" else []
        rows += singles.check_balance(good) if name == "screening" else []
    return rows
