"""The simulated user's emotion, 0 to 100, and how a reply moves it (after SAGE, arXiv 2505.02847; the formula is ours).

It starts at 40. At 100 the user has what it came for and ends the session; below 10 it gives up and leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from empathy_agent.measures import measure_gap

if TYPE_CHECKING:
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.heads import Head
    from empathy_agent.turns import Turn

START, SATISFIED, LEAVES = 40.0, 100.0, 10.0
STEP = 10.0  # a reply moves the emotion by this much at most
FORGIVEN = 0.2  # weighted gap at which a reply that is on topic neither pleases nor annoys
# Cosine of a reply to what the user said or wants: the median over replies to other conversations, and the lowest quartile
# over the written replies to their own (25 conversations of each task in `conversations/`).
OFF_TOPIC, ON_TOPIC = 0.1, 0.35
LOOKS_BACK = 40  # turns


class Judged(TypedDict):
    """How a reply met the user: levels in [0, 1], and how far it was about what the user said, in [0, 1]."""

    perceived: float
    desired: float
    on_topic: float


Judge = Callable[[list[dict[str, str]], "str | None", "dict[str, Any] | None"], Judged]


def move_emotion(emotion: float, judged: Judged) -> float:
    """Returns the emotion after a reply, in [0, 100].

    With the signed gap g = perceived - desired and desired level d, a gap weighs more where it is away from what the user is
    after: w = 0.5 + d for too little empathy (g < 0), w = 1.5 - d for too much. Closeness is c = 1 - min(2, w·|g| / 0.2), in
    [-1, 1], and the emotion moves by 10 · (o · (1 + c) - 1) with on-topicness o: up to 10 either way, and down by 10 for a
    reply that is about something else, however warm.

    >>> right = Judged(perceived=0.9, desired=0.9, on_topic=1.0)
    >>> move_emotion(40.0, right), move_emotion(95.0, right)
    (50.0, 100.0)
    >>> move_emotion(40.0, Judged(perceived=0.7, desired=0.9, on_topic=1.0))  # too cold for one who grieves
    36.0
    >>> move_emotion(40.0, Judged(perceived=1.0, desired=0.8, on_topic=1.0))  # too warm is forgiven there
    43.0
    >>> move_emotion(40.0, Judged(perceived=0.3, desired=0.1, on_topic=1.0))  # but not by one who wants a film
    36.0
    >>> move_emotion(40.0, Judged(perceived=0.9, desired=0.9, on_topic=0.0))
    30.0
    """
    gap, desired = measure_gap(judged["perceived"], judged["desired"]), judged["desired"]
    weight = 0.5 + desired if gap < 0 else 1.5 - desired
    closeness = 1 - min(2.0, weight * abs(gap) / FORGIVEN)
    moved = emotion + STEP * (judged["on_topic"] * (1 + closeness) - 1)
    return round(min(100.0, max(0.0, moved)), 2)


def name_outcome(emotion: float) -> str | None:
    """`done` for a satisfied user, `left` for one who gives up, None while the session goes on.

    >>> name_outcome(100.0), name_outcome(9.99), name_outcome(10.0)
    ('done', 'left', None)
    """
    return "done" if emotion >= SATISFIED else "left" if emotion < LEAVES else None


def measure_on_topic(similarity: float) -> float:
    """On-topicness in [0, 1]: linear between the cosine of a reply that belongs elsewhere and of one that belongs here.

    >>> measure_on_topic(0.05), measure_on_topic(0.225), measure_on_topic(0.5)
    (0.0, 0.5, 1.0)
    """
    return round(min(1.0, max(0.0, (similarity - OFF_TOPIC) / (ON_TOPIC - OFF_TOPIC))), 4)


def learned_judge(engine: EmpathyEngine, head: Head | None = None) -> Judge:
    """A judge from an engine's readings: `judge(trajectory, task, persona)`, where the trajectory ends with the reply.

    Perceived is the learned judge's level, desired what the user's message calls for in the session's task, whatever the app
    took it for. A reply is about what the user last said or wants; one that was given before is about nothing.

    Args:
        engine: Encoder, need and task table.
        head: A judge that did not choose what it judges; None takes the engine's own.
    """

    def judge(trajectory: list[dict[str, str]], task: str | None, persona: dict[str, Any] | None) -> Judged:
        from empathy_agent.judge import judge_reply
        from empathy_agent.need import choose_target, read_need

        said: Sequence[Turn] = trajectory[-LOOKS_BACK:-1]  # type: ignore[assignment]
        reply = trajectory[-1]["content"]
        if not reply.strip():
            return Judged(perceived=0.0, desired=0.0, on_topic=0.0)
        need = read_need(engine.heads["need"], engine.encoder, said)
        wanted = [turn["content"] for turn in said if turn["role"] == "user"][-3:]
        wanted += [persona["wants"]] if persona and persona.get("wants") else []
        repeated = any(turn["role"] == "assistant" and turn["content"] == reply for turn in said)
        vectors = engine.encoder.encode([reply, *wanted])
        return Judged(
            perceived=judge_reply(head or engine.heads["judge"], engine.encoder, said, reply)["level"],
            desired=choose_target(engine.tasks.get(task or ""), need, 0.0),
            on_topic=0.0 if repeated else measure_on_topic(float((vectors[1:] @ vectors[0]).max())),
        )

    return judge
