from __future__ import annotations

import pytest

from empathy_agent.errors import InputError
from empathy_agent.settings import Settings, get_settings


def test_environment_sets_defaults_and_a_context_overrides_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMPATHY_AGENT_TOP_K", "4")
    monkeypatch.setenv("EMPATHY_AGENT_REVIEW", "yes")
    monkeypatch.setenv("EMPATHY_AGENT_LEVEL", "0.3")
    settings = get_settings({"top_k": 1})
    assert (settings.top_k, settings.review, settings.level) == (1, True, 0.3)
    assert get_settings(None).top_k == 4


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"top_k": 99}, "setting top_k is 99: it must lie between 0 and 10"),
        ({"tolerance": "wide"}, "setting tolerance is 'wide': it must be float"),
        ({"review": "false"}, "setting review is 'false': it must be bool"),
        ({"seed": 1.5}, "setting seed is 1.5: it must be int"),
        ({"temperature": True}, "setting temperature is True"),
        ({"max_revisions": None}, "setting max_revisions is None"),
        ({"system": "magic"}, "choose one of experts, prompt, base"),
        ({"warmth": 1}, "unknown settings warmth: known are assistant_prompt, candidates, correct_drift"),
        ({"level": -0.1}, "between 0 and 1"),
    ],
)
def test_a_bad_setting_names_what_is_allowed(values: dict, error: str):
    with pytest.raises(InputError, match=error):
        get_settings(values)


def test_a_bad_variable_names_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMPATHY_AGENT_SEED", "lucky")
    with pytest.raises(InputError, match="EMPATHY_AGENT_SEED is 'lucky': expected int"):
        Settings.from_environment()


def test_every_setting_has_a_description_that_reaches_studio():
    from empathy_agent import build_graph

    schema = build_graph().compile().get_context_jsonschema()
    assert set(schema["properties"]) == set(Settings.__dataclass_fields__)
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["properties"]["system"]["enum"] == ["experts", "prompt", "base"]
