from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from empathy_agent import EmpathyEngine
from empathy_agent.content import find_weights
from empathy_agent.errors import InputError
from empathy_agent.evaluation import evaluating, judging, playing
from empathy_agent.evaluation.remembering import remember
from empathy_agent.evaluation.scenarios import Scenario
from empathy_agent.evaluation.systems import System, build_app, list_systems
from empathy_agent.evaluation.transcripts import write_transcripts
from empathy_agent.settings import Settings

SETTINGS = Settings(max_new_tokens=12, temperature=0, max_revisions=0)
SAID = [
    Scenario("film", "movie_recommendation", ["A funny film for tonight?", "Shorter, please.", "Thanks."], [None] * 3),
    Scenario("grief", "therapy", ["My dad died last week.", "I still set two plates."], [0.7, None], [None, 0.9]),
]
APPS = """
from langchain_core.language_models import FakeListChatModel

calls = []

async def warm(message, *, thread_id):
    calls.append(thread_id)
    return "I am so sorry. It sounds unbearably lonely to set that plate, and of course you cry. Will you tell me of him?"

def cold(message, thread_id):
    return {"role": "assistant", "content": "Ok."}

def breaks(message, *, thread_id):
    raise RuntimeError("no answer today")

def model():
    return FakeListChatModel(responses=["Noted."])

number = 3
"""


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "their_apps.py").write_text(APPS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("their_apps", None)
    import their_apps

    return their_apps


def play(engine: EmpathyEngine, out: Path, systems: str, **more: Any) -> evaluating.Played:
    options: dict[str, Any] = {"scenarios": SAID, "settings": SETTINGS, **more}
    return evaluating.play(engine=engine, systems=list_systems(systems), out=out, **options)


def test_any_app_is_played_judged_and_measured(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    played = play(engine, tmp_path / "records", "warm=their_apps:warm,cold=their_apps:cold,model=their_apps:model")
    report = evaluating.evaluate(played, engine=engine, scenarios=SAID)
    warm, cold = report["systems"]["warm"], report["systems"]["cold"]
    grief = {c["id"]: c for c in warm["conversations"]}["grief"]
    replies = [turn for turn in grief["turns"] if turn["role"] == "assistant"]
    assert [turn["desired"] for turn in replies] == [0.7, 0.923]  # the scenario's, then the task's
    assert warm["tasks"]["therapy"]["perceived"] > 0.5 > cold["tasks"]["therapy"]["perceived"]
    assert warm["tasks"]["movie_recommendation"]["abs_gap"] > cold["tasks"]["movie_recommendation"]["abs_gap"]
    assert (warm["replies"], warm["judged"]) == (5, 5)
    assert replies[0]["gap"] == pytest.approx(replies[0]["perceived"] - 0.7, abs=1e-6)
    assert len(replies[0]["needed"]) == len(replies[0]["delivered"]) == 3
    assert report["judge_cards"]["learned"]["independent"] is not False
    json.dumps(report, allow_nan=False)


def test_transcripts_hold_every_turn_as_it_was_with_its_state(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    played = play(engine, tmp_path / "records", "warm=their_apps:warm,experts")
    report = evaluating.evaluate(played, engine=engine, scenarios=SAID, command=["empathy-agent", "evaluate", "a b"])
    text = write_transcripts(report, "experts")
    assert "    empathy-agent evaluate 'a b'" in text
    for conversation in report["systems"]["experts"]["conversations"]:
        assert f"## {conversation['id']}" in text
        for turn in conversation["turns"]:
            assert " ".join(turn["content"].split()) in text
    assert "adapter, need 0." in text
    assert ", adapter" not in write_transcripts(report, "warm")
    with pytest.raises(InputError, match="no system 'cold' in the report: it has warm, experts"):
        write_transcripts(report, "cold")


def test_what_was_played_is_not_played_again_and_more_can_be_added(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    out = tmp_path / "records"
    first = play(engine, out, "warm=their_apps:warm", scenarios=SAID[:1])
    assert len(apps.calls) == 3
    second = play(engine, out, "warm=their_apps:warm")
    assert len(apps.calls) == 5
    assert second.systems["warm"][0] == first.systems["warm"][0]
    with (out / "warm.jsonl").open("a") as file:
        file.write('{"schema": 1, "id": "tor')
    assert play(engine, out, "warm=their_apps:warm").systems == second.systems
    assert len(apps.calls) == 5
    with pytest.raises(InputError, match=r"played with another turns \(None, not 1\): name another --out"):
        play(engine, out, "warm=their_apps:warm", turns=1)
    with pytest.raises(InputError, match="another top_k"):
        play(engine, out, "warm=their_apps:warm", settings=replace(SETTINGS, top_k=5))
    changed = [replace(SAID[0], lines=["Something else."]), SAID[1]]
    with pytest.raises(InputError, match="another session film"):
        play(engine, out, "warm=their_apps:warm", scenarios=changed)


def test_a_system_that_always_fails_is_reported_not_dropped(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    played = play(engine, tmp_path / "records", "broken=their_apps:breaks,warm=their_apps:warm")
    report = evaluating.evaluate(played, engine=engine, scenarios=SAID)
    broken = report["systems"]["broken"]
    assert (broken["failed"], broken["judged"], broken["mean_abs_gap"]) == (2, 0, None)
    assert broken["conversations"][0]["error"] == "RuntimeError: no answer today"
    assert report["systems"]["warm"]["mean_abs_gap"] is not None


def test_recorded_conversations_are_judged_as_they_are_and_ratings_stay_apart(engine: EmpathyEngine):
    turns = [
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "My dad died last week."},
        {"role": "assistant", "content": "Ok.", "rating": {"level": 0.9}},
        {"role": "user", "content": "That is all you say?"},
        {"role": "assistant", "content": "  "},
        {"role": "user", "content": "I want to die."},
        {"role": "assistant", "content": "Please call 112.", "state": {"route": "hand_off"}},
        {"role": "user", "content": "I am safe, thanks."},
        {"role": "assistant", "content": "I am glad that you are safe."},
    ]
    scenario = Scenario("a", "therapy", ["x"], turns=turns)
    records = playing.list_recorded([scenario], None)
    played = evaluating.Played({"recorded": records}, {}, False, {})
    report = evaluating.evaluate(played, engine=engine, scenarios=[scenario])
    system = report["systems"]["recorded"]
    replies = [turn for turn in system["conversations"][0]["turns"] if turn["role"] == "assistant"]
    assert [turn["perceived"] is not None for turn in replies] == [False, True, False, False, True]
    assert replies[0]["unrated"] == {"learned": "no user turn before it"}
    assert replies[2]["unrated"] == {"learned": "the reply is empty"}
    assert (system["judged"], system["hand_offs"], system["judged_by"]["learned"]["failed"]) == (2, 1, 2)
    assert report["judges"] == ["learned", "user"]
    assert system["judged_by"]["user"]["mean_abs_gap"] == pytest.approx(0.023, abs=1e-6)
    assert replies[4]["violations"] == ["feeling"]
    assert len(playing.list_recorded([scenario], 1)[0]["turns"]) == 3
    with pytest.raises(InputError, match="needs scenarios whose turns hold the assistant's replies"):
        playing.list_recorded(SAID, None)


def test_desired_moves_with_the_need_only_where_that_is_asked_for(engine: EmpathyEngine):
    record = {"id": "film", "task": "movie_recommendation", "status": "done", "turns": []}
    record["turns"] = [
        {"role": "user", "content": "My mother died and I need a film for her funeral, I cannot stop crying."},
        {
            "role": "assistant",
            "content": "Ok.",
            "state": {"desired": 0.99, "target": 0.99, "assessment": {"level": 1.0}},
        },
    ]
    options: dict[str, Any] = {"engine": engine, "head": engine.heads["judge"], "tolerance": 0.15}
    found = {}
    for by in ("task", "need"):
        (talk,) = judging.judge_records([record], scenarios={}, desired_by=by, **options)
        found[by] = talk["turns"][1]["desired"]
        assert talk["turns"][1]["perceived"] < 0.5  # not what the system said of itself
    unknown = {**record, "task": None}
    (recognized,) = judging.judge_records([unknown], scenarios={}, desired_by="task", **options)
    assert recognized["task"] in engine.tasks.profiles
    labelled = {"film": Scenario("film", "movie_recommendation", ["x"], [None], [0.0])}
    (talk,) = judging.judge_records([record], scenarios=labelled, desired_by="need", **options)
    assert talk["turns"][1]["desired"] < 0.065 == found["task"] < found["need"]


def test_a_second_judge_stands_beside_and_is_asked_once(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    played = play(engine, tmp_path / "records", "warm=their_apps:warm")
    asked: list[int] = []

    def rate(cases: list[judging.Case]) -> list[dict[str, Any]]:
        asked.append(len(cases))
        assert all(history[-1]["role"] == "user" and reply for history, reply in cases)
        failure = {"failure": "refusal", "detail": "I cannot"}
        return [
            failure if len(said) > 4 else {"level": 0.8, "dimensions": None, "mechanisms": {"exploration": 2.0}}
            for said, _ in cases
        ]

    remembered = remember(tmp_path / "ratings.jsonl", "a-model", rate)
    for _ in range(2):
        report = evaluating.evaluate(played, engine=engine, scenarios=SAID, rate=remembered, rater="a-model")
    assert asked == [5, 1]  # the failure alone is asked again
    judged = report["systems"]["warm"]["judged_by"]["generative"]
    assert (judged["judged"], judged["failed"], judged["mechanisms"]["exploration"]) == (4, 1, 2.0)
    assert report["systems"]["warm"]["judged_by"]["learned"]["judged"] == 5
    assert report["judge_cards"]["generative"]["name"] == "a-model"
    film = report["systems"]["warm"]["conversations"][0]
    assert film["turns"][-1]["unrated"] == {"generative": "refusal: I cannot"}


def test_a_judge_that_chose_is_no_independent_one(engine: EmpathyEngine, tmp_path: Path):
    shipped = find_weights("heads")
    _, card = evaluating.choose_judge(None, engine, None, picks=True)
    assert (card["name"], card["independent"], card["reasons"]) == ("check", True, [])
    with pytest.raises(InputError, match="no independent check: a system chooses among its drafts"):
        evaluating.choose_judge(shipped, engine, None, picks=True)
    _, card = evaluating.choose_judge(shipped, engine, None, picks=False)
    assert len(card["sha256"]) == 64
    shutil.copy(shipped / "judge.safetensors", tmp_path)
    (tmp_path / "judge.json").write_text(json.dumps({"saw": {"folds": [1, 2], "conversations_sha256": "abc"}}))
    _, card = evaluating.choose_judge(tmp_path, engine, "def", picks=False)
    assert card["independent"] is True
    assert card["saw"]["saw"]["folds"] == [1, 2]
    with pytest.raises(InputError, match="trained on these scenarios"):
        evaluating.choose_judge(tmp_path, engine, "abc", picks=False)
    with pytest.raises(InputError, match="no judge.safetensors in"):
        evaluating.choose_judge(tmp_path / "none", engine, None, picks=False)


def test_an_expert_trained_on_a_judges_preference_is_named(tmp_path: Path, engine: EmpathyEngine):
    check = find_weights("heads") / "check"
    _, card = evaluating.choose_judge(None, engine, None, picks=False)
    (tmp_path / "compassionate").mkdir()
    described = {"preference": {"selector": {"sha256": card["sha256"]}}}
    (tmp_path / "compassionate" / "expert.json").write_text(json.dumps(described))
    other = EmpathyEngine(adapters=str(tmp_path))
    with pytest.raises(InputError, match="expert compassionate was trained on what this judge preferred"):
        evaluating.choose_judge(check, other, None, picks=False)


def test_systems_are_found_by_name_path_and_what_they_are(engine: EmpathyEngine, tmp_path: Path, apps: Any):
    for source in ("their_apps:warm", f"{tmp_path}/their_apps.py:cold", "their_apps:model"):
        assert callable(build_app(System("x", source), engine, SETTINGS))
    top = Path(__file__).parent.parent
    assert callable(build_app(System("x", f"{top}/graphs/empathetic_chat.py:graph"), engine, SETTINGS))
    for source, error in {
        "their_apps:number": "is a int: name a graph",
        "their_apps:nothing": "has no attribute 'nothing'",
        f"{tmp_path}/none.py:graph": "no file",
    }.items():
        with pytest.raises(InputError, match=error):
            build_app(System("x", source), engine, SETTINGS)
    assert [system.name for system in list_systems("base,their_apps:warm")] == ["base", "their_apps_warm"]
    for given, error in {
        "magic": "choose base, prompt, experts or recorded",
        "base,base": "is repeated",
        "base=a:b": "reserved",
        "no_need=a:b": "reserved",
        "a/b=x:y": "not made of letters",
        ",": "names no system",
    }.items():
        with pytest.raises(InputError, match=error):
            list_systems(given)


def test_a_chat_model_is_a_system(engine: EmpathyEngine, tmp_path: Path):
    from empathy_agent.evaluation.systems import wrap_app

    app = wrap_app(FakeListChatModel(responses=["Noted."]), SETTINGS, "x:y")
    specs = playing.list_specs(SAID, app, turns=1, seed=0, build_user=lambda persona: None, emotion_judge=None)
    records = playing.play_system(
        specs,
        tmp_path / "m.jsonl",
        {"sessions": {}, "source": "x", "played": {}, "settings": {}},
        4,
        lambda record: None,
    )
    assert [record["turns"][1]["content"] for record in records] == ["Noted.", "Noted."]
    assert [len(record["turns"]) for record in records] == [2, 2]
