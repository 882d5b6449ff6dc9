"""Holds a new conversation to the gates, against those kept before it and those it must differ from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from empathy_agent.synthesis import gates, likeness, schema, wording
from empathy_agent.synthesis.limits import GateRow, Limits
from empathy_agent.tasks import Tasks

if TYPE_CHECKING:
    import numpy as np

    from empathy_agent.encoder import Encoder

Row = dict[str, Any]


class Shelf:
    """The conversations kept so far, with the vectors that a new one is compared to.

    Args:
        encoder: Embeds replies and conversations.
        tasks: Desired empathy of each task.
        limits: Bounds of the gates.
        shipped: Conversations that new ones must differ from; they do not count in the mean level.
        exemplars: Exemplars that no reply may copy.
    """

    def __init__(
        self,
        encoder: Encoder,
        tasks: Tasks,
        limits: Limits,
        shipped: Sequence[Row] = (),
        exemplars: Sequence[Row] = (),
    ):
        self._encoder, self._tasks, self._limits = encoder, tasks, limits
        self.shipped, self.kept = list(shipped), list[Row]()
        self._replies = [encoder.encode([row["reply"] for row in exemplars])]
        self._wholes: list[np.ndarray] = []
        for conversation in shipped:
            self._embed(conversation)

    def _embed(self, conversation: Row) -> None:
        self._replies.append(self._encode_replies(conversation))
        self._wholes.append(likeness.embed_conversation(self._encoder, conversation))

    def _encode_replies(self, conversation: Row) -> np.ndarray:
        return self._encoder.encode([turn["content"] for _, turn in gates.list_replies([conversation])])

    def keep(self, conversation: Row) -> None:
        """Puts a conversation among those that later ones are compared to."""
        self.kept.append(conversation)
        self._embed(conversation)

    def find_faults(self, conversation: Row, contrasted: bool) -> list[str]:
        """Names the gates that a conversation does not pass, each with what was measured; empty where it may be kept.

        The first three stop at once, since the later ones need what they check. The mean level is that of the task's kept
        conversations with the new one: it must lie within the bound, or come nearer to the desired empathy than before.
        """
        if faults := schema.find_conversation_faults(conversation, self._tasks):
            return [f"schema: {faults[0]}"]
        one, limits = [conversation], self._limits
        if faults := _list_failed([*gates.check_roles(one), *gates.check_lengths(one)]):
            return faults
        every = [*self.shipped, *self.kept, conversation]
        replies = [(place, turn["content"]) for place, turn in gates.list_replies(one)]
        faults = _list_failed(
            [*gates.check_contrast_sides(one, limits), *wording.check_honesty(replies, conversation["id"])]
        )
        faults += _list_failed(wording.check_distinct(one, limits))
        if contrasted and not all(turn.get("contrasts") for _, turn in gates.list_replies(one)):
            faults.append("contrasted: a reply has no contrasts")
        faults += [
            f"{row.name}: {row.measured}" for row in gates.check_split(every) if conversation["id"] in row.offenders
        ]
        faults += self._find_likeness(conversation) + self._find_openings(conversation, every)
        return faults + self._find_level(conversation)

    def _find_likeness(self, conversation: Row) -> list[str]:
        import numpy as np

        own = self._encode_replies(conversation)
        whole = likeness.embed_conversation(self._encoder, conversation)[None]
        inside = likeness.find_nearest(own)[0].max()
        outside = likeness.find_nearest(own, np.concatenate(self._replies))[0].max()
        wholes = likeness.find_nearest(whole, np.stack(self._wholes))[0].max() if self._wholes else -1.0
        measured = [
            ("cosine of replies", max(inside, outside), self._limits.reply_cosine),
            ("cosine of conversations", wholes, self._limits.conversation_cosine),
        ]
        return [f"{name}: {found:.3f}, allowed <= {most}" for name, found, most in measured if found > most]

    def _find_openings(self, conversation: Row, every: list[Row]) -> list[str]:
        own = {wording.get_opening(turn["content"]) for _, turn in gates.list_replies([conversation])}
        same = [row for row in every if row["expert"] == conversation["expert"]]
        offenders = wording.check_openings(same, self._limits)[0].offenders
        return [
            f"opening of three words: {o.split(':')[0]}" for o in offenders if any(o.startswith(f"{w!r}:") for w in own)
        ]

    def _find_level(self, conversation: Row) -> list[str]:
        desired = self._tasks.get(conversation["task"]).desired
        before = [row for row in self.kept if row["task"] == conversation["task"]]
        (row,) = gates.check_levels([*before, conversation], self._limits, self._tasks)
        if row.passed or (before and abs(_mean([*before, conversation]) - desired) < abs(_mean(before) - desired)):
            return []
        return [f"mean level: {row.measured}, allowed {row.allowed}"]


def _mean(conversations: list[Row]) -> float:
    levels = [turn["empathy"]["level"] for _, turn in gates.list_replies(conversations)]
    return sum(levels) / len(levels)


def _list_failed(rows: list[GateRow]) -> list[str]:
    return [f"{row.name}: {'; '.join(row.offenders[:3])}" for row in rows if row.passed is False]
