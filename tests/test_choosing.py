"""The choice among candidates: each cost by itself, and their order."""

from __future__ import annotations

import pytest

from empathy_agent import EmpathyEngine
from empathy_agent.choosing import FLUENCY_WEIGHT, SAME_OPENING, UNFINISHED, measure_costs, repeats_opening
from empathy_agent.turns import Turn

GRIEF = [
    Turn(role="user", content="My dad died last week."),
    Turn(role="assistant", content="It makes sense that you miss him."),
    Turn(role="user", content="I can't stop crying about him."),
]
KIND = "Losing your dad hurts so much, and crying for him is part of missing him. What do you miss most?"


def cost(
    engine: EmpathyEngine,
    replies: list[str],
    finished: list[bool] | None = None,
    target: float = 0.92,
    logprobs: list[float] | None = None,
) -> list[float]:
    whole, likely = finished or [True] * len(replies), logprobs or [0.0] * len(replies)
    return measure_costs(engine.heads["judge"], engine.encoder, GRIEF, replies, whole, likely, target)


def test_the_reply_that_meets_the_target_on_topic_costs_least(engine: EmpathyEngine):
    cool, elsewhere = "Noted.", "The train to Verona takes five hours and leaves at nine."
    costs = cost(engine, [KIND, cool, elsewhere])
    assert costs[0] == min(costs)
    assert cost(engine, [KIND, cool], target=0.05)[1] < cost(engine, [KIND, cool], target=0.05)[0]


def test_of_two_alike_the_one_that_its_writer_finds_likelier_costs_less(engine: EmpathyEngine):
    sure, odd = cost(engine, [KIND, KIND], logprobs=[-0.4, -2.4])
    assert odd == pytest.approx(sure + 2 * FLUENCY_WEIGHT)


def test_what_is_cut_off_repeated_dishonest_or_begins_as_before_costs_more(engine: EmpathyEngine):
    (plain,) = cost(engine, [KIND])
    assert cost(engine, [KIND], [False])[0] == pytest.approx(plain + UNFINISHED)
    assert cost(engine, [f"{KIND} {KIND}"])[0] > plain + 0.1
    assert cost(engine, [f"{KIND} I feel so sad for you."])[0] > plain + 0.5
    opened = "It makes sense that crying for your dad does not stop."
    assert repeats_opening(opened, [GRIEF[1]["content"]])
    assert not repeats_opening("It makes", ["It makes"])
    assert (
        cost(engine, [opened])[0] > cost(engine, [opened.replace("It makes sense", "No wonder")])[0] + SAME_OPENING / 2
    )
