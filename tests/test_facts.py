"""What counts as a fact, and what a rewording may not do to it."""

from __future__ import annotations

import doctest

import pytest

from empathy_agent import EmpathyEngine, facts
from empathy_agent.facts import find_changes
from empathy_agent.rewording import SAME_MEANING


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(facts).failed == 0


@pytest.mark.parametrize(
    ("draft", "reply", "changes"),
    [
        ("It costs $20.", "Twenty it is, but $20.5 in the end.", ["lost $20", "made up $20.5", "made up Twenty"]),
        ("Call 020 7946 0018 before 9:30.", "Before 9:30, call 020 7946 0018.", []),
        ("See [the page](https://a.org/x).", "Here you are: https://a.org/x", []),
        ("See https://a.org/x.", "See https://a.org/xy.", ["lost https://a.org/x", "made up https://a.org/xy"]),
        ("Run `pip install x`.", "Take a breath, then run `pip install X`.", ["lost `pip install x`", "made up `pip install X`"]),
        ("Ask Ann Lee in Paris.", "Breathe. Ask Ann in Paris.", ["lost Lee"]),
        ("Come tomorrow at ten.", "Ten tomorrow, then.", []),
        ("You must not drink it.", "You must drink it.", ["lost a negation"]),
        ("You can drink it.", "You can drink it, and I'm sure you need not worry.", []),
        ('He wrote "come home".', "He wrote “come back”.", ["lost come home", "made up come back"]),
    ],
)  # fmt: skip
def test_a_fact_survives_only_as_it_stands(draft: str, reply: str, changes: list[str]):
    assert find_changes(draft, reply) == changes


def test_what_the_conversation_or_a_tool_holds_is_not_made_up():
    found = find_changes(
        "It is there.", "In lisbon, Maria, for 20 euros.", results=['{"price":20}'], said="maria, lisbon"
    )
    assert found == []
    assert find_changes("Done.", "Done, Maria.", said="") == ["made up Maria"]


def test_same_meaning_tells_rewordings_from_other_replies(engine: EmpathyEngine):
    pairs = [
        ("Your flight LH123 is delayed by 2 hours.", "That's a long wait after an early start: LH123 leaves 2 hours late."),
        ("Refunds take 5 working days.", "Waiting on money is unpleasant. Your refund arrives within 5 working days."),
        ("You should see a dentist.", "A toothache wears anyone down. A dentist should look at it, and soon."),
        ("Add the fractions with a common denominator.", "You were close. Find the common denominator, then add them."),
        ("The clinic offers grief counselling.", "Losing him leaves a hole. When you want company, there is grief counselling."),
    ]  # fmt: skip
    drafts, replies = (engine.encoder.encode(list(texts)) for texts in zip(*pairs, strict=True))
    near = (drafts * replies).sum(1)
    far = (drafts * replies[[1, 2, 3, 4, 0]]).sum(1)
    assert far.max() < SAME_MEANING < near.min()
