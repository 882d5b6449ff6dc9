"""What each conversation adds to measures of quality: sums above and below a ratio, so that each has an interval.

Levels and gaps are in `levels.py`. A name that no conversation adds to is None, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation.intervals import measure_ratio, measure_ratio_interval, measure_share_interval
from empathy_agent.evaluation.language import list_words, measure_distinct, measure_repetition
from empathy_agent.evaluation.levels import get_assessment
from empathy_agent.evaluation.sessions import count_alarms, measure_session
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.simulation.emotion import LEAVES, SATISFIED

if TYPE_CHECKING:
    import numpy as np

GROUPS: dict[str, tuple[str, ...]] = {
    "session": ("outcome", "efficiency", "stability"),
    "emotion": ("start", "final", "content", "lost"),
    "users": ("out_of_role", "goals_reached", "told", "told_abs_gap"),
    "language": ("words", "distinct_2", "repetition"),
    "shares": ("alarms", "violations"),
}
CONSTRUCTS: dict[str, tuple[str, ...]] = {"dimensions": tuple(DIMENSIONS), "mechanisms": tuple(MECHANISMS)}
SHARES = ("content", "lost", "out_of_role", "goals_reached", "told", *GROUPS["shares"])

Conversation = Mapping[str, Any]
Added = Iterator[tuple[str, float, float]]  # name, what is added above, what below


def measure_tallies(
    conversations: Sequence[Conversation],
    groups: Mapping[str, Sequence[str]],
    add: Callable[[Conversation], Added],
    rows: Mapping[str, int],
    resamples: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Measures groups of names, each with its interval.

    Args:
        conversations: As in report.json.
        groups: Names by group.
        add: What a conversation adds to each name, such as `add_qualities`.
        rows: Row of each conversation id in the resamples.
        resamples: Counts from `intervals.draw_resamples`.

    Returns:
        `{group: {name: value}, group_interval: {name: [low, high]}}`.
    """
    import numpy as np

    names = [name for group in groups.values() for name in group]
    sums = {name: np.full((2, len(rows)), np.nan) for name in names}
    for conversation in conversations:
        for name, above, below in add(conversation):
            if below:
                sums[name][:, rows[conversation["id"]]] = above, below
    found: dict[str, dict[str, Any]] = {}
    for group, members in groups.items():
        found[group] = {name: measure_ratio(*sums[name]) for name in members}
        found[f"{group}_interval"] = {
            name: (measure_share_interval if name in SHARES else measure_ratio_interval)(top, bottom, resamples)
            for name, (top, bottom) in ((name, sums[name]) for name in members)
        }
    return found


def add_qualities(conversation: Conversation) -> Added:
    """What a conversation adds to `GROUPS`."""
    turns = conversation["turns"]
    judged = [turn for turn in turns if get_assessment(turn) is not None]
    columns = ([turn[key] for turn in judged] for key in ("needed", "delivered", "course"))
    for name, score in measure_session(*columns).items():
        if score is not None:
            yield name, score, 1
    if judged:
        yield "alarms", count_alarms([turn["alarm"] for turn in judged]) > 0, 1
        yield "violations", any(turn["violations"] for turn in judged), 1
    yield from _add_language([t["content"] for t in turns if t["role"] == "assistant" and t["route"] != "hand_off"])
    known = [value for value in conversation["emotion"] or () if value is not None]
    if known:
        yield "start", known[0], 1
        yield "final", known[-1], 1
        yield "content", known[-1] >= SATISFIED, 1
        yield "lost", known[-1] < LEAVES, 1
        yield "goals_reached", max(known) >= SATISFIED, 1
    if conversation["role"] is not None:
        left = {found["turn"] for found in conversation["role"]["breaks"] if found["kept"]}
        yield "out_of_role", len(left), sum(turn["role"] == "user" for turn in turns)
        due = [(turn, turns[at + 1 : at + 2]) for at, turn in enumerate(turns) if turn.get("disclosed")]
        yield "told", sum(turn["told"] for turn, _ in due), len(due)
        gaps = [abs(r["gap"]) for turn, after in due if turn["told"] for r in after if r.get("gap") is not None]
        yield "told_abs_gap", sum(gaps), len(gaps)


def _add_language(replies: Sequence[str]) -> Added:
    """What the system's models wrote; the fixed words of a hand-off are none of it."""
    yield "words", sum(len(list_words(reply)) for reply in replies), len(replies)
    for name, value in (("distinct_2", measure_distinct(replies)), ("repetition", measure_repetition(replies))):
        if value is not None:
            yield name, value, 1


def add_constructs(judge: str | None) -> Callable[[Conversation], Added]:
    """What a conversation adds to `CONSTRUCTS` as `judge` sees it, None being the first; what does not apply adds nothing."""

    def add(conversation: Conversation) -> Added:
        found = [assessment for turn in conversation["turns"] if (assessment := get_assessment(turn, judge))]
        for part, names in CONSTRUCTS.items():
            for name in names:
                known = [a[part][name] for a in found if a.get(part) and a[part].get(name) is not None]
                yield name, sum(known), len(known)

    return add


def count_users(conversations: Sequence[Conversation]) -> dict[str, Any] | None:
    """Counts what simulated users did: messages, those asked for again, out of role by kind, and late disclosures due."""
    played = [conversation for conversation in conversations if conversation["role"] is not None]
    if not played:
        return None
    said = [turn for conversation in played for turn in conversation["turns"] if turn["role"] == "user"]
    kinds = sorted(b["kind"] for conversation in played for b in conversation["role"]["breaks"] if b["kept"])
    return {
        "sessions": len(played),
        "messages": len(said),
        "retries": sum(conversation["role"]["retries"] for conversation in played),
        "breaks": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "disclosures": sum(bool(turn.get("disclosed")) for turn in said),
    }
