from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from empathy_agent import EmpathyEngine, Settings, build_graph
from empathy_agent.errors import InputError
from empathy_agent.evaluation.ablations import (
    ABLATIONS,
    Replaced,
    ablate,
    choose_middle,
    list_ablations,
    permute_experts,
)
from empathy_agent.tasks import load_tasks

SETTINGS = Settings(max_new_tokens=6, temperature=0, max_revisions=1, seed=1)
GRIEF = {"messages": [{"role": "user", "content": "My dad is ill again and I worry about him. I only want to vent."}]}
UNDER = {
    "gap": -0.5,
    "mean_gap": -0.5,
    "ewma": -0.5,
    "slope": 0.0,
    "alarm": "under",
    "turns": 3,
    "over": 0,
    "under": 3,
    "retention": None,
    "course": "steady",
    "deficit": [0.0] * 3,
    "deficits": [0.0] * 3,
    "cusum_over": 0.0,
    "cusum_under": 1.0,
    "sums": {"n": 3, "t": 6, "g": -1.5, "tg": -3, "tt": 14},
    "first": [0.1] * 3,
    "window": [0.1] * 3,
}


def run(engine: EmpathyEngine, name: str | None, **more: object) -> dict:
    used, settings = ablate(name, engine, SETTINGS) if name else (engine, SETTINGS)
    return build_graph(engine=used).compile().invoke({**GRIEF, **more}, context=settings)


def test_every_ablation_takes_away_its_part_and_no_other(engine: EmpathyEngine):
    whole = run(engine, None, drift=UNDER)
    found = {name: run(engine, name, drift=UNDER) for name in ABLATIONS}
    assert len(whole["exemplars"]) == 2
    assert found["no_retrieval"]["exemplars"] == []
    profile = engine.tasks.get(whole["task"]["label"])
    assert whole["desired"] != profile.desired == found["no_need"]["desired"]
    assert found["no_need"]["need"]["level"] == whole["need"]["level"]
    assert whole["target"] > whole["desired"]
    assert found["no_drift_correction"]["target"] == whole["desired"]
    assert len(found["no_drift_correction"]["exemplars"]) == 1
    assert len(whole["revisions"]) == 2
    assert len(found["no_revise"]["revisions"]) == 1
    assert found["wrong_expert"]["expert"] == permute_experts(engine.tasks)[whole["expert"]]
    assert len(found["wrong_expert"]["revisions"]) == len(found["one_draft"]["revisions"]) == 1
    assert found["one_draft"]["expert"] == whole["expert"]
    assert found["universal_adapter"]["expert"] == choose_middle(engine.tasks) == "considerate"
    for name in ("no_retrieval", "no_revise", "wrong_expert", "universal_adapter"):
        assert found[name]["target"] == whole["target"]
        assert isinstance(found[name]["messages"][-1], AIMessage)
    assert engine.tasks.choose_expert("therapy", 0.9) == "compassionate"  # the engine itself is as it was


def test_replaced_experts_flap_no_more_than_their_own():
    tasks = load_tasks()
    wrong = Replaced(tasks.profiles, tasks.patterns, permute_experts(tasks))
    standing, replaced = None, None
    for target in (0.3, 0.44, 0.5, 0.46, 0.62, 0.9, 0.7):
        standing = tasks.choose_expert("customer_support", target, standing)
        replaced = wrong.choose_expert("customer_support", target, replaced)
        assert replaced == wrong.experts[standing] != standing


def test_names_of_ablations_are_checked(engine: EmpathyEngine):
    assert list_ablations(None) == []
    assert list_ablations("all") == list(ABLATIONS)
    assert list_ablations("no_need,no_revise") == ["no_need", "no_revise"]
    with pytest.raises(InputError, match="'no_magic' is unknown: choose no_retrieval"):
        list_ablations("no_magic")
