"""Puts report.json together from judged conversations; `docs/report.md` documents every key."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from empathy_agent.evaluation.measuring import (
    BASE,
    Conversations,
    build_basis,
    compare_systems,
    list_pairs,
    measure_system,
)

SCHEMA = 1
WHOLE = "experts"  # the system that an ablation leaves a part out of
PACKAGES = ("empathy-agent", "langgraph", "numpy", "peft", "scipy", "sentence-transformers", "torch", "transformers")


def build_report(
    *,
    systems: Mapping[str, Conversations],
    ablations: Mapping[str, Conversations],
    judges: list[str],
    tolerance: float,
    seed: int,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Measures every system and ablation and compares them.

    Args:
        systems: Judged conversations by name of the system, as `judging.judge_records` returns them.
        ablations: The same of `experts` with a part left out each.
        judges: Names of the judges, that of the systems' own numbers first.
        tolerance: Absolute gap that still counts as met, in [0, 1].
        seed: Of resamples and tests.
        facts: What is known besides: `command`, `settings`, `scenarios`, `judge_cards`, `tasks`.

    Returns:
        The report of `docs/report.md`: JSON values only, None where something is not defined.
    """
    played = {**systems, **ablations}
    basis = build_basis(list(played.values()), judges, tolerance, seed)
    base = systems.get(BASE)
    measured = {
        name: measure_system(conversations, base if name != BASE else None, basis)
        for name, conversations in played.items()
    }
    left_out = [(name, WHOLE) for name in ablations if WHOLE in systems]
    return {
        "schema": SCHEMA,
        "command": facts["command"],
        "versions": list_versions(),
        "seed": seed,
        "settings": {**facts["settings"], "tolerance": tolerance, "resamples": len(basis.resamples)},
        "scenarios": facts["scenarios"],
        "judges": judges,
        "judge_cards": facts["judge_cards"],
        "tasks": facts["tasks"],
        "systems": {name: {**measured[name], "conversations": list(systems[name])} for name in systems},
        "comparisons": [
            *compare_systems(played, list_pairs(list(systems)), basis),
            *compare_systems(played, left_out, basis),
        ],
        "ablations": {name: measured[name] for name in ablations} if ablations else None,
    }


def list_versions() -> dict[str, str | None]:
    """Versions of the interpreter and of the packages that a number depends on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
