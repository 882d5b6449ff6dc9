"""The graph's state: plain JSON values and messages, nothing that a checkpointer could not write or a reader not read."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from empathy_agent.measures import Course

Route = Literal["adapter", "prompt", "base", "hand_off"]


class Safety(TypedDict):
    """What the crisis screen saw in the last user message and its context."""

    route: Literal["continue", "hand_off"]
    category: str
    score: float


class Task(TypedDict):
    """The recognized task; `scores` are probabilities of every task and of `unknown`, and sum to one."""

    label: str
    confidence: float
    scores: dict[str, float]
    runner_up: str


class Need(TypedDict):
    """What the last user message in its context calls for by itself; levels and parts in [0, 1]."""

    level: float
    affective: float
    cognitive: float
    motivational: float
    emotion: str
    intensity: float
    cause: str
    wishes: list[str]
    reasons: list[str]


class Exemplar(TypedDict):
    """A retrieved exemplary turn; `score` is cosine similarity less the distance of levels."""

    id: str
    score: float
    pattern: str
    level: float
    user: str
    reply: str


class Assessment(TypedDict):
    """How a reply is perceived: level in [0, 1], dimensions 1-5 or None, mechanisms 0-2, honest-AI violations.

    `uncertainty` is the standard deviation of the level over several judgements, None where there was only one.
    """

    level: float
    dimensions: dict[str, float | None]
    mechanisms: dict[str, float]
    uncertainty: float | None
    violations: NotRequired[list[str]]


class Drift(TypedDict):
    """Running statistics of the signed gap (perceived less desired); see `drift.py` for every formula."""

    gap: float
    mean_gap: float
    ewma: float
    slope: float
    alarm: Literal["none", "over", "under"]
    turns: int
    over: int
    under: int
    retention: float | None
    course: Course
    deficit: list[float]
    deficits: list[float]
    cusum_over: float
    cusum_under: float
    sums: dict[str, float]
    first: list[float]
    window: list[float]


class EmpathyState(TypedDict):
    """State of a conversation.

    A host graph that declares `messages`, `task` and `drift` keeps both over its own turns. Everything but those three speaks
    of the last turn; after a hand-off, `need`, `desired`, `target`, `expert` and `assessment` are None. `route_reason` says
    why another route or model wrote than the settings ask for, and is empty where none did. `desired` is what the
    message in its task calls for, `target` the same after drift correction; the gap is measured against `desired`. `draft` is a
    reply that may still be replaced, kept out of `messages` so that no stream shows it; None once it is sent or thrown away.
    """

    messages: Annotated[list[AnyMessage], add_messages]
    safety: NotRequired[Safety]
    task: NotRequired[Task]
    review: NotRequired[bool]
    need: NotRequired[Need]
    desired: NotRequired[float]
    target: NotRequired[float]
    expert: NotRequired[str]
    exemplars: NotRequired[list[Exemplar]]
    route: NotRequired[Route]
    route_reason: NotRequired[str]
    assessment: NotRequired[Assessment]
    draft: NotRequired[dict | None]
    revisions: NotRequired[list[dict]]
    drift: NotRequired[Drift]
