"""What a caller may change for one run: the graph's `context_schema`, drawn as a form by LangGraph Studio."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field

from empathy_agent.errors import InputError

LONGEST_PROMPT = 8_000  # characters
OPTIONAL = ("level", "temperature")  # numbers that may be None
SWITCHES = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


def _at(*nodes: str, prompt: bool = False, **about: Any) -> Any:
    """A field that Studio shows beside the nodes it changes, as an editor of text where it is a prompt."""
    return Field(
        json_schema_extra={"langgraph_nodes": [*nodes], **({"langgraph_type": "prompt"} if prompt else {})}, **about
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How empathetic replies are chosen, written and checked in one run of the graph."""

    system: Annotated[
        Literal["experts", "prompt", "base"],
        _at(
            "generate_reply",
            description="Who writes: the expert adapter, the base guided by the pattern's prompt, or the bare base.",
        ),
    ] = "experts"
    expert: Annotated[
        str,
        _at(
            "estimate_need",
            description="Always answer with this expert, whatever the need; empty lets the need choose.",
        ),
    ] = ""
    level: Annotated[
        float | None,
        _at(
            "estimate_need",
            description="Empathy that the host wants, 0 to 1, in place of the estimated target.",
            ge=0,
            le=1,
        ),
    ] = None
    user_preference: Annotated[
        float,
        _at(
            "estimate_need",
            description="What this user likes: -1 much less empathy than usual, 0 as usual, 1 much more.",
            ge=-1,
            le=1,
        ),
    ] = 0.0
    use_need: Annotated[
        bool,
        _at(
            "estimate_need",
            description="Let what a message calls for move the target away from what its task usually wants.",
        ),
    ] = True
    correct_drift: Annotated[
        bool,
        _at(
            "estimate_need",
            "retrieve_exemplars",
            description="Let a drift alarm move the next target and add an exemplar.",
        ),
    ] = True
    top_k: Annotated[
        int,
        _at("retrieve_exemplars", description="Exemplars shown to the model; 0 switches retrieval off.", ge=0, le=10),
    ] = 1
    tolerance: Annotated[
        float,
        _at(
            "assess_reply",
            "track_drift",
            description="Gap between perceived and desired empathy that still counts as met.",
            ge=0,
            le=1,
        ),
    ] = 0.15
    candidates: Annotated[
        int,
        _at(
            "generate_reply",
            description="Replies that a local model writes in one batch, of which the one nearest the target, on topic and "
            "whole is sent; 1 without revisions streams the reply as it is written.",
            ge=1,
            le=8,
        ),
    ] = 4
    max_revisions: Annotated[
        int,
        _at(
            "assess_reply",
            description="How often a reply that misses the target is written again; above 0 the reply arrives whole.",
            ge=0,
            le=5,
        ),
    ] = 1
    review: Annotated[
        bool, _at("assess_reply", description="Stop before a reply is sent, so that a person can edit it.")
    ] = False
    pause_on_hand_off: Annotated[
        bool, _at("hand_off", description="After a hand-off, stop until a person resumes the thread.")
    ] = False
    temperature: Annotated[
        float | None,
        _at(
            "generate_reply",
            description="Sampling temperature; 0 is greedy; empty takes the one that the task table has for the expert, or 0.6.",
            ge=0,
            le=2,
        ),
    ] = None
    max_new_tokens: Annotated[int, _at("generate_reply", description="Longest reply, in tokens.", ge=1, le=4096)] = 160
    seed: Annotated[int, _at("generate_reply", description="Seed of sampling.", ge=0, le=2**31)] = 0

    assistant_prompt: Annotated[
        str,
        _at(
            "generate_reply",
            prompt=True,
            description="Words that tell the model who it is; empty takes the shipped ones.",
            max_length=LONGEST_PROMPT,
        ),
    ] = ""
    pattern_prompt: Annotated[
        str,
        _at(
            "generate_reply",
            prompt=True,
            description="Words that describe the pattern where it is a prompt; empty takes those of the expert.",
            max_length=LONGEST_PROMPT,
        ),
    ] = ""

    def __post_init__(self) -> None:
        hints = get_type_hints(Settings, include_extras=True)
        for field in fields(Settings):
            value, annotation = getattr(self, field.name), hints[field.name]
            if field.name == "system":
                if value not in (allowed := get_args(get_args(annotation)[0])):
                    raise InputError(f"setting system is {value!r:.80}: choose one of {', '.join(allowed)}")
                continue
            kind = _get_kind(field)
            fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (
                kind is bool
            )
            if not fits and not (value is None and field.name in OPTIONAL):
                raise InputError(f"setting {field.name} is {value!r:.80}: it must be {kind.__name__}")
            bounds = {type(m).__name__: m for m in get_args(annotation)[1].metadata}
            if value is None or not bounds:
                continue
            if "MaxLen" in bounds:
                if len(value) > bounds["MaxLen"].max_length:
                    raise InputError(
                        f"setting {field.name} has {len(value):,} characters: at most {bounds['MaxLen'].max_length:,}"
                    )
                continue
            low = bounds["Ge"].ge if "Ge" in bounds else float("-inf")
            high = bounds["Le"].le if "Le" in bounds else float("inf")
            if not low <= value <= high:
                raise InputError(f"setting {field.name} is {value!r:.80}: it must lie between {low} and {high}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Builds settings from `EMPATHY_AGENT_<NAME>` variables; what is not set keeps its default.

        Raises:
            InputError: A variable cannot be read as its setting's type.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(f"EMPATHY_AGENT_{field.name.upper()}")
            if text is None:
                continue
            kind = _get_kind(field)
            try:
                given[field.name] = SWITCHES[text.strip().lower()] if kind is bool else kind(text)
            except (ValueError, KeyError):
                raise InputError(
                    f"EMPATHY_AGENT_{field.name.upper()} is {text!r:.80}: expected {kind.__name__}"
                ) from None
        return cls(**given)


def _get_kind(field: Any) -> Any:
    return float if field.name in OPTIONAL else type(field.default)


def get_settings(context: Any) -> Settings:
    """Returns the run's settings: LangGraph gives None when the caller passed no context, the server a mapping.

    Where the context is a host's own, the settings are in its field `empathy`: a `Settings`, a mapping or None.

    Raises:
        InputError: Something is no setting.
    """
    if not isinstance(context, Settings | Mapping):
        context = getattr(context, "empathy", None)
    elif isinstance(context, Mapping) and "empathy" in context:
        context = context["empathy"]
    if isinstance(context, Settings):
        return context
    if not isinstance(context, Mapping | None):
        raise InputError(f"empathy is {context!r:.80}: it must be Settings, or a mapping of them")
    known = {field.name for field in fields(Settings)}
    extra = sorted(set(context or {}) - known)
    if extra:
        raise InputError(f"unknown settings {', '.join(extra)}: known are {', '.join(sorted(known))}")
    return Settings(**{**asdict(Settings.from_environment()), **(context or {})})
