"""What a gate allows, and the row in which it says what it measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds of the gates; shares, levels and cosines in [0, 1], counts of lines.

    Cosines, openings, distinct-2 and the distance of the mean level are those that the project set for its own corpus; the
    counts are those of the shipped one, and smaller for a corpus of one's own.
    """

    conversations: int = 150  # a task, at least
    long_share: float = 0.1  # of a task's conversations with 30 messages or more, at least
    test_share: tuple[float, float] = (0.10, 0.20)  # of a task's conversations, least and most
    contrasted: float = 1 / 3  # of a task's conversations with two worse replies at every assistant turn, at least
    margin: float = 0.1  # by which `over` lies above and `under` below the level of its turn, at least
    reply_cosine: float = 0.95  # between two replies, at most
    near_cosine: float = 0.85  # from which two replies count as neighbours, reported only
    conversation_cosine: float = 0.97  # between two conversations, at most
    opening: float = 0.02  # of an expert's replies that begin with the same three words, at most
    distinct: float = 0.5  # distinct-2 of an expert's replies, at least
    level: float = 0.05  # between the mean level of a task's replies and its desired empathy, at most
    exemplars: int = 60  # a task, at least
    personas: int = 200  # at least
    unknown: int = 300  # at least
    screening: int = 600  # at least, and between 45 and 55 % of them dangerous


@dataclass(frozen=True)
class GateRow:
    """The outcome of one gate at one place (a task, an expert, a file, or `all`).

    Attributes:
        name: The gate.
        where: What it was measured over.
        measured: What it found, as text with its unit.
        allowed: What it accepts.
        passed: Whether it does; None where a number is only reported.
        offenders: Ids, tasks or openings at fault, each with the reason behind a colon where there is one to tell.
    """

    name: str
    where: str
    measured: str
    allowed: str
    passed: bool | None
    offenders: list[str] = field(default_factory=list)


def build_row(name: str, where: str, measured: str, allowed: str, offenders: Iterable[str]) -> GateRow:
    """A row that passes when nothing offends."""
    offenders = list(offenders)
    return GateRow(name, where, measured, allowed, not offenders, offenders)
