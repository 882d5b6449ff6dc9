from __future__ import annotations

from pathlib import Path

import pytest

from empathy_agent.errors import InputError
from empathy_agent.tasks import DEFAULT_TASKS, load_tasks


def test_the_shipped_table_holds_the_paper_s_reported_levels_and_every_expert():
    tasks = load_tasks()
    assert tasks.get("movie_recommendation").desired == 0.065
    assert tasks.get("therapy").desired == 0.923
    assert {p.expert for p in tasks.profiles.values()} == set(tasks.patterns)
    assert len(tasks.profiles) == 9


def test_each_task_s_own_expert_answers_at_its_desired_level():
    tasks = load_tasks()
    for name, profile in tasks.profiles.items():
        assert tasks.choose_expert(name, profile.desired) == profile.expert


def test_another_expert_takes_over_only_by_a_margin_and_does_not_flap():
    tasks = load_tasks()
    assert tasks.choose_expert("movie_recommendation", 0.40) == "considerate"
    midway = (tasks.patterns["considerate"] + tasks.patterns["encouraging"]) / 2
    assert tasks.choose_expert("tutoring", midway - 0.03) == "encouraging"
    assert tasks.choose_expert("travel_planning", midway + 0.03) == "considerate"
    assert tasks.choose_expert("travel_planning", midway + 0.03, standing="encouraging") == "encouraging"
    assert tasks.choose_expert("travel_planning", midway - 0.03, standing="encouraging") == "considerate"
    assert tasks.choose_expert("health_coaching", 0.80, standing="compassionate") == "compassionate"


def test_unknown_never_gets_the_compassionate_expert():
    tasks = load_tasks()
    assert {tasks.choose_expert("unknown", level / 20) for level in range(21)} == {
        "factual",
        "considerate",
        "encouraging",
    }
    assert tasks.get("no such task").name == "unknown"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("desired = 0.065", "desired = 6.5"), "movie_recommendation.desired is 6.5: it must lie between 0 and 1"),
        (('expert = "compassionate"', 'expert = "gushing"'), "names expert 'gushing': known are factual"),
        (("[tasks.unknown]", "[tasks.other]"), r"add a \[tasks.unknown\] table"),
        (("[patterns.factual]", "[patterns.factual"), "is not a task table"),
    ],
)
def test_a_bad_table_is_a_clear_error(tmp_path: Path, change: tuple[str, str], error: str):
    path = tmp_path / "tasks.toml"
    path.write_text(DEFAULT_TASKS.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(InputError, match=error):
        load_tasks(path)


def test_a_user_adds_a_task_and_a_pattern_as_data(tmp_path: Path):
    path = tmp_path / "tasks.toml"
    extra = (
        "\n[patterns.playful]\nlevel = 0.75\n"
        '[tasks.bedtime_story]\ndesired = 0.75\nsource = "ours"\nexpert = "playful"\nusual_need = 0.3\n'
    )
    path.write_text(DEFAULT_TASKS.read_text(encoding="utf-8") + extra, encoding="utf-8")
    tasks = load_tasks(path)
    assert tasks.choose_expert("bedtime_story", 0.75) == "playful"
