"""Ablations: the graph with its experts and one part left out or spoiled, to see what that part is worth."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from statistics import fmean

from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.settings import Settings
from empathy_agent.tasks import UNKNOWN, Tasks

UNIVERSAL = (
    "universal"  # an adapter of this name, trained on the conversations of all tasks, is taken where there is one
)

ABLATIONS = {
    "no_retrieval": "no exemplars",
    "no_need": "the task's desired empathy alone, whatever the message calls for",
    "no_drift_correction": "drift alarms change nothing",
    "no_revise": "the first draft is sent",
    "one_candidate": "no choice among candidates",
    "one_draft": "neither: the right expert answers once, to be compared with the wrong one",
    "universal_adapter": "one expert answers everything: the adapter `universal` where there is one, else the middle one",
    "wrong_expert": "every expert answers once for its neighbour: a fixed permutation",
}


def ablate(name: str, engine: EmpathyEngine, settings: Settings) -> tuple[EmpathyEngine, Settings]:
    """Returns engine and settings of an ablation; the engine shares every model with the given one.

    Raises:
        InputError: There is no such ablation.
    """
    settings = replace(settings, system="experts")
    once = replace(settings, candidates=1, max_revisions=0)
    changes: dict[str, Settings] = {
        "no_retrieval": replace(settings, top_k=0),
        "no_need": replace(settings, use_need=False),
        "no_drift_correction": replace(settings, correct_drift=False),
        "no_revise": replace(settings, max_revisions=0),
        "one_candidate": replace(settings, candidates=1),
        "one_draft": once,
    }
    if name in changes:
        return engine, changes[name]
    if name == "universal_adapter":
        expert = UNIVERSAL if UNIVERSAL in engine.experts else choose_middle(engine.tasks)
        return _replace_tasks(engine, dict.fromkeys(engine.tasks.patterns, expert)), settings
    if name == "wrong_expert":
        return _replace_tasks(engine, permute_experts(engine.tasks)), once
    raise InputError(f"ablation {name!r} is unknown: choose {', '.join(ABLATIONS)}, or all")


def list_ablations(given: str | None) -> list[str]:
    """Reads `all` or a list of names; None is none.

    Raises:
        InputError: A name is unknown.
    """
    names = list(ABLATIONS) if given == "all" else [name for name in (given or "").split(",") if name]
    for name in names:
        if name not in ABLATIONS:
            raise InputError(f"ablation {name!r} is unknown: choose {', '.join(ABLATIONS)}, or all")
    return names


def permute_experts(tasks: Tasks) -> dict[str, str]:
    """The fixed permutation without a fixed point: each expert gives way to the next by level, the last to the first.

    >>> permute_experts(Tasks({}, {"warm": 0.9, "cool": 0.1, "mild": 0.4}))
    {'cool': 'mild', 'mild': 'warm', 'warm': 'cool'}
    """
    ordered = sorted(tasks.patterns, key=tasks.patterns.__getitem__)
    return dict(zip(ordered, [*ordered[1:], *ordered[:1]], strict=True))


def choose_middle(tasks: Tasks) -> str:
    """The one expert that is nearest to all tasks: its level is nearest the mean desired empathy of the tasks."""
    mean = fmean(profile.desired for name, profile in tasks.profiles.items() if name != UNKNOWN)
    return min(tasks.patterns, key=lambda name: abs(tasks.patterns[name] - mean))


@dataclass(frozen=True)
class Replaced(Tasks):
    """A task table whose choice of expert is replaced by another: `experts` holds who answers for whom."""

    experts: dict[str, str]

    def choose_expert(self, task: str, target: float, standing: str | None = None) -> str:
        """Chooses as the whole table does, with its inertia, then returns who answers instead."""
        stood = [name for name, other in self.experts.items() if other == standing]
        before = stood[0] if len(stood) == 1 else None
        return self.experts[super().choose_expert(task, target, before)]


def _replace_tasks(engine: EmpathyEngine, experts: dict[str, str]) -> EmpathyEngine:
    engine.load()  # so that the copy shares what is loaded
    other = copy.copy(engine)
    other.tasks = Replaced(engine.tasks.profiles, engine.tasks.patterns, experts, decodings=engine.tasks.decodings)
    return other
