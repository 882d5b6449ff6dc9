from __future__ import annotations

import json

import pytest
from reports import write_conversation, write_reply, write_report

from empathy_agent import measures
from empathy_agent.evaluation.summary import write_summary


def test_numbers_are_those_of_the_formulas():
    base = [write_conversation("a", [0.1, 0.1, 0.1]), write_conversation("b", [0.3, 0.3, 0.3])]
    experts = [write_conversation("a", [0.4, 0.5, 0.6]), write_conversation("b", [0.5, 0.5, 0.5])]
    report = write_report({"base": base, "experts": experts})
    found = report["systems"]["experts"]
    assert report["systems"]["base"]["mean_abs_gap"] == pytest.approx(0.3)
    assert found["mean_abs_gap"] == pytest.approx((0.2 / 3 + 0) / 2, abs=1e-6)
    assert found["gap_reduction"] == pytest.approx(
        measures.measure_gap_reduction([-0.1, 0, 0.1, 0, 0, 0], [-0.4] * 3 + [-0.2] * 3), abs=1e-6
    )
    assert found["score_factor"] == pytest.approx(0.5 / 0.2)
    assert found["tasks"]["therapy"] == {
        "desired": 0.5,
        "perceived": 0.5,
        "perceived_interval": [0.5, 0.5],
        "gap": 0.0,
        "abs_gap": 0.033333,
        "abs_gap_interval": [0.0, 0.066667],
        "gap_reduction": 0.888889,
        "conversations": 2,
    }
    assert found["thirds"] == {"early": 0.05, "middle": 0.0, "late": 0.05}
    assert [row["perceived"] for row in found["curve"]] == [0.45, 0.5, 0.55]
    low, high = found["gap_reduction_interval"]
    assert low <= found["gap_reduction"] <= high


def test_no_gap_in_base_is_no_reduction_and_base_has_none_against_itself():
    exact = [write_conversation("a", [0.5, 0.5]), write_conversation("b", [0.5, 0.5])]
    systems = write_report({"base": exact, "experts": exact})["systems"]
    assert systems["experts"]["gap_reduction"] is None
    assert systems["experts"]["gap_reduction_interval"] is None
    assert systems["base"]["gap_reduction"] is None
    worse = write_report({"base": [write_conversation("a", [0.4])], "experts": [write_conversation("a", [0.9])]})
    assert worse["systems"]["experts"]["gap_reduction"] == pytest.approx(-3)
    alone = write_report({"experts": exact})["systems"]["experts"]
    assert alone["gap_reduction"] is alone["score_factor"] is None


def test_a_long_conversation_weighs_as_much_as_a_short_one():
    found = write_report({"experts": [write_conversation("a", [0.9] * 30), write_conversation("b", [0.5])]})
    system = found["systems"]["experts"]
    assert system["mean_abs_gap"] == pytest.approx(0.2)
    assert system["curve"][0]["conversations"] == 2
    assert (len(system["curve"]), system["curve"][-1]["conversations"]) == (30, 1)
    assert system["retention"] == {"10": 1.0, "20": 1.0, "30": 1.0, "50": None}
    assert system["thirds"]["late"] == pytest.approx(0.4)  # the short one has no thirds


def test_retention_of_one_conversation_is_that_of_measures():
    fading = [0.9 - 0.02 * turn for turn in range(20)]
    found = write_report({"prompt": [write_conversation("a", fading)]})["systems"]["prompt"]["retention"]
    assert found["10"] == pytest.approx(measures.measure_retention(fading[:10]), abs=1e-5)
    assert found["20"] == pytest.approx(measures.measure_retention(fading), abs=1e-5)
    low = write_report({"prompt": [write_conversation("a", [0.0] * 10)]})["systems"]["prompt"]["retention"]
    assert low["10"] is None


def test_a_hand_off_in_the_middle_counts_as_a_turn_and_enters_no_mean():
    with_one = [write_conversation("a", [0.4, None, 0.6]), write_conversation("b", [0.5, 0.5, 0.5])]
    system = write_report({"experts": with_one})["systems"]["experts"]
    assert (system["replies"], system["judged"], system["hand_offs"]) == (6, 5, 1)
    assert [row["turn"] for row in system["curve"]] == [1, 2, 3]
    assert [row["conversations"] for row in system["curve"]] == [2, 1, 2]
    assert system["mean_abs_gap"] == pytest.approx(0.05)
    assert system["language"]["words"] == 3.0
    only = write_report({"experts": [write_conversation("a", [None], status="handed_off")]})["systems"]["experts"]
    assert only["mean_abs_gap"] is None
    assert only["hand_offs"] == 1


def test_a_system_that_failed_always_has_no_numbers_and_spoils_no_other():
    failed = [write_conversation(name, [], status="failed", error="ReplyError: stopped") for name in "ab"]
    fine = [write_conversation(name, [0.4, 0.4]) for name in "ab"]
    report = write_report({"base": failed, "experts": fine})
    base, experts = report["systems"]["base"], report["systems"]["experts"]
    assert base["failed"] == 2
    assert base["mean_abs_gap"] is base["over_share"] is base["seconds"]["p50"] is base["language"]["words"] is None
    assert base["tasks"] == {}
    assert experts["mean_abs_gap"] == pytest.approx(0.1)
    assert experts["gap_reduction"] is None
    assert {row["p"] for row in report["comparisons"]} == {None}
    assert {row["conversations"] for row in report["comparisons"]} == {0}
    assert "| base | – |" in write_summary(report)


def test_zero_and_one_conversation_are_defined():
    none = write_report({"base": [], "experts": []})
    assert none["systems"]["experts"]["mean_abs_gap"] is None
    assert none["systems"]["experts"]["curve"] == []
    assert write_summary(none).startswith("# Evaluation")
    one = write_report({"base": [write_conversation("a", [0.2])], "experts": [write_conversation("a", [0.4])]})
    experts = one["systems"]["experts"]
    assert experts["mean_abs_gap"] == pytest.approx(0.1)
    assert experts["mean_abs_gap_interval"] is experts["gap_reduction_interval"] is None
    assert experts["gap_reduction"] == pytest.approx(2 / 3, abs=1e-6)
    assert {row["p"] for row in one["comparisons"] if row["metric"] == "mean_abs_gap"} == {1.0}


def test_a_gap_as_wide_as_the_tolerance_is_still_met():
    system = write_report({"experts": [write_conversation("a", [0.35, 0.65, 0.34, 0.66])]})["systems"]["experts"]
    assert (system["over_share"], system["under_share"]) == (0.25, 0.25)


def test_comparisons_pair_conversations_and_correct_for_their_number():
    names = [f"c{number}" for number in range(8)]
    systems = {
        "base": [write_conversation(name, [0.1]) for name in names],
        "prompt": [write_conversation(name, [0.3]) for name in names[:6]],
        "experts": [write_conversation(name, [0.4 + 0.01 * at]) for at, name in enumerate(reversed(names))],
    }
    rows = [row for row in write_report(systems)["comparisons"] if row["metric"] == "mean_abs_gap"]
    assert [(row["system"], row["against"], row["conversations"]) for row in rows] == [
        ("prompt", "base", 6),
        ("experts", "base", 8),
        ("experts", "prompt", 6),
    ]
    assert rows[0]["difference"] == pytest.approx(-0.2)
    assert rows[1]["p"] == pytest.approx(2 / 2**8, abs=1e-6)
    assert rows[1]["p_holm"] == pytest.approx(3 * 2 / 2**8, abs=1e-5)
    assert rows[1]["interval"][1] < 0


def test_judges_stand_apart_and_are_never_mixed():
    def talk(name: str, shown: float) -> dict:
        found = write_conversation(name, [])
        found["turns"] = [
            {"role": "user", "content": "hello"},
            write_reply(0.4, ratings={"user": {"level": shown, "dimensions": {"interest": 5}, "mechanisms": None}}),
            {"role": "user", "content": "and now?"},
            write_reply(0.5, unrated={"generative": "refusal: no"}),
            {"role": "user", "content": "really?"},
            write_reply(0.6, ratings={"user": {"level": shown + 0.1, "dimensions": None, "mechanisms": None}}),
        ]
        return found

    report = write_report({"experts": [talk("a", 0.8), talk("b", 0.9)]}, judges=["learned", "generative", "user"])
    system = report["systems"]["experts"]
    assert system["mean_abs_gap"] == pytest.approx(0.2 / 3, abs=1e-6)
    judged = system["judged_by"]
    assert judged["learned"]["mean_abs_gap"] == system["mean_abs_gap"]
    assert judged["user"]["mean_abs_gap"] == pytest.approx(0.4)
    assert judged["user"]["dimensions"]["interest"] == 5
    assert judged["user"]["judged"] == judged["user"]["agreement"]["replies"] == 4
    assert (judged["generative"]["judged"], judged["generative"]["failed"]) == (0, 2)
    assert judged["generative"]["mean_abs_gap"] is None
    assert judged["user"]["agreement"]["against"] == "learned"
    assert judged["learned"]["agreement"] is None


def test_a_dimension_that_does_not_apply_is_skipped_and_other_means_stay():
    system = write_report({"experts": [write_conversation("a", [0.5, 0.75])]})["systems"]["experts"]
    assert system["dimensions"]["interest"] is None
    assert system["dimensions"]["prosocial_expression"] == 3.5
    assert system["mechanisms"]["exploration"] == 1.25


def play_user(name: str, disclosed: list[bool | None], emotion: list[float], **more: object) -> dict:
    """A session with a simulated user: for each message whether something was due and told, or None."""
    found = write_conversation(name, [0.5, 0.7, 0.4], emotion=emotion, persona="p1", role={"retries": 0, "breaks": []})
    for turn, told in zip(found["turns"][::2], disclosed, strict=True):
        turn |= {"disclosed": None if told is None else "she lost her job", "told": told}
    return {**found, **more}


def test_simulated_users_are_counted_and_held_to_their_role():
    left = {"turn": 1, "kind": "repeats", "kept": True}
    mended = {"turn": 2, "kind": "assistant", "kept": False}
    talks = [
        play_user("a", [None, True, False], [40, 70, 100, 90], role={"retries": 2, "breaks": [left, mended]}),
        play_user("b", [None, None, True], [40, 30, 5, 0]),
        write_conversation("script", [0.5]),
    ]
    system = write_report({"experts": talks, "scripted": talks[2:]})["systems"]
    users, ends = system["experts"]["users"], system["experts"]["users_interval"]
    assert users == {
        "sessions": 2,
        "messages": 6,
        "retries": 2,
        "breaks": {"repeats": 1},
        "disclosures": 3,
        "out_of_role": pytest.approx(1 / 6, abs=1e-6),
        "goals_reached": 0.5,
        "told": pytest.approx(2 / 3, abs=1e-6),
        "told_abs_gap": pytest.approx((0.2 + 0.1) / 2),  # of the replies right after what was told
    }
    assert ends == {
        "out_of_role": [0.0, pytest.approx(1 / 3, abs=1e-6)],
        "goals_reached": [0.0, 1.0],
        "told": [0.5, 1.0],
        "told_abs_gap": [0.1, 0.2],
    }
    assert system["experts"]["emotion"] == {"start": 40, "final": 45, "content": 0.0, "lost": 0.5}
    assert system["experts"]["emotion_interval"]["content"] == [0.0, pytest.approx(0.657619, abs=1e-5)]
    assert system["scripted"]["users"] is system["scripted"]["emotion"] is None
    text = write_summary(write_report({"experts": talks})).replace("\N{NO-BREAK SPACE}", " ")
    for row in ("Goals reached | 50 % (0 % to 100 %)", "Messages out of role | 17 % (0 % to 33 %)"):
        assert f"| {row} |" in text
    assert "| Gap of the replies to them | 0.15 (0.10 to 0.20) |" in text


def test_no_violation_is_no_proof_that_there_is_none():
    clean = [write_conversation(f"c{at}", [0.5] * 30) for at in range(10)]
    system = write_report({"experts": clean})["systems"]["experts"]
    assert (system["violations"], system["violation_share"]) == (0, 0.0)
    low, high = system["violation_share_interval"]
    assert low == 0
    assert high == pytest.approx(0.2775, abs=1e-3)  # of 10 conversations, however many replies they have
    clean[0]["turns"][1]["violations"] = clean[0]["turns"][3]["violations"] = ["feeling"]
    one = write_report({"experts": clean})["systems"]["experts"]
    assert (one["violations"], one["violations_by"], one["violation_share"]) == (2, {"feeling": 2}, 0.1)


def test_every_figure_that_is_a_mean_has_an_interval_around_it():
    talks = [
        write_conversation(f"c{at}", [0.3 + 0.02 * at + 0.01 * n * (at % 3) for n in range(12)]) for at in range(8)
    ]
    for at, talk in enumerate(talks):
        for turn in talk["turns"][1::2]:
            turn["content"] = "Two of them, and " + "one more, " * at
    base = [write_conversation(f"c{at}", [0.1 + 0.01 * at] * 12) for at in range(8)]
    system = write_report({"base": base, "experts": talks})["systems"]["experts"]
    single = (
        "mean_abs_gap",
        "mean_gap",
        "gap_reduction",
        "score_factor",
        "over_share",
        "under_share",
        "violation_share",
    )
    pairs = [(system[name], system[f"{name}_interval"]) for name in (*single, "alarm_share")]
    for group in ("thirds", "retention", "session", "language", "dimensions", "mechanisms"):
        values, ends = system[group], system[f"{group}_interval"]
        assert values.keys() == ends.keys()
        pairs += [(value, ends[name]) for name, value in values.items()]
    known = [(value, ends) for value, ends in pairs if value is not None]
    assert len(known) == len(pairs) - 4  # retention at 20, 30 and 50, and the dimension that does not apply
    assert all(ends[0] <= value <= ends[1] for value, ends in known)
    assert system["retention_interval"]["10"][0] < system["retention"]["10"] < system["retention_interval"]["10"][1]
    assert system["language_interval"]["words"][0] < system["language_interval"]["words"][1]


def test_retention_of_two_systems_is_compared_over_the_conversations_that_both_have():
    steady = [write_conversation(f"c{at}", [0.8] * 10) for at in range(6)]
    fading = [write_conversation(f"c{at}", [0.8] * 5 + [0.4] * 5) for at in range(5)]
    report = write_report({"prompt": fading, "experts": steady})
    (row,) = [row for row in report["comparisons"] if row["metric"].startswith("retention")]
    assert (row["metric"], row["conversations"], row["difference"]) == ("retention_10", 5, 0.5)
    assert row["interval"] == [0.5, 0.5]
    assert row["p"] is row["p_holm"] is None


def test_ablations_have_the_shape_of_a_system_without_conversations():
    talks = [write_conversation(name, [0.4, 0.5]) for name in "ab"]
    worse = [write_conversation(name, [0.2, 0.2]) for name in "ab"]
    report = write_report({"base": talks, "experts": talks}, {"no_revise": worse})
    experts = report["systems"]["experts"]
    assert set(report["ablations"]["no_revise"]) == set(experts) - {"conversations"}
    assert ("no_revise", "experts") in {(row["system"], row["against"]) for row in report["comparisons"]}
    assert write_report({"base": talks})["ablations"] is None
    json.dumps(report, allow_nan=False)


def test_the_summary_can_be_quoted():
    base = [write_conversation(f"c{at}", [0.1, 0.2, 0.1]) for at in range(6)]
    good = [write_conversation(f"c{at}", [0.45, 0.5, 0.55]) for at in range(6)]
    report = write_report({"base": base, "experts": good}, {"no_revise": base}, judges=["learned", "user"])
    text = write_summary(report).replace("\N{NO-BREAK SPACE}", " ")
    assert "| experts | 0.033 [0.033, 0.033] | 90.9 % [90.9 %, 90.9 %] | 3.75 [3.75, 3.75] |" in text
    assert "**not independent**: it also picks" in text
    for title in ("## Tasks", "## Comparisons", "## All figures", "## Judges, apart", "## Ablations"):
        assert title in text
    assert "| absolute gap at turn | 1 | 2 | 3 |" in text
    assert "| experts | 0.050 | 0.000 | 0.050 |" in text
    assert "| Replies with too little | 100 % (61 % to 100 %) | 0 % (0 % to 39 %) |" in text
    assert "| Conversations with one | 0 % (0 % to 39 %) | 0 % (0 % to 39 %) |" in text
    assert "nan" not in text.lower().split()
