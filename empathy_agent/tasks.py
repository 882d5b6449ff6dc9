"""Task profiles: the desired empathy of each task and the expert that answers it, read from `tasks.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_agent.decoding import Decoding
from empathy_agent.errors import InputError

UNKNOWN = "unknown"
DEFAULT_TASKS = Path(__file__).with_name("tasks.toml")
NAME = re.compile(r"\w[\w-]{0,63}")  # names become names of prompts and adapters
SAMPLED = ("temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size")  # what `decoding` of a pattern may set
EXPERT_MARGIN = 0.08  # another expert must be nearer to the target by this much to take over from the task's own


@dataclass(frozen=True)
class TaskProfile:
    """One task: `desired` empathy and `usual_need` in [0, 1], and the name of its expert."""

    name: str
    desired: float
    source: str
    expert: str
    usual_need: float


@dataclass(frozen=True)
class Tasks:
    """All task profiles by name, `unknown` among them, and the level in [0, 1] of each expert's pattern.

    `decodings` says how an expert's replies are sampled where its pattern says so.
    """

    profiles: dict[str, TaskProfile]
    patterns: dict[str, float]
    decodings: dict[str, Decoding] = field(default_factory=dict, kw_only=True)

    def get(self, name: str) -> TaskProfile:
        """Returns the profile of `name`, or that of `unknown` for a task that the table does not hold."""
        return self.profiles.get(name, self.profiles[UNKNOWN])

    def get_decoding(self, expert: str | None) -> Decoding:
        """Returns how the replies of `expert`, or of the bare base, are sampled unless a caller says otherwise."""
        return self.decodings.get(expert or "", Decoding())

    def choose_expert(self, task: str, target: float, standing: str | None = None) -> str:
        """Returns the expert whose pattern lies nearest `target`.

        The task's own expert, or the standing one of the turn before, stays unless another is nearer by a margin,
        so that the expert does not flap. `unknown` never gets the pattern with the highest level.
        """
        profile = self.get(task)
        allowed = dict(self.patterns)
        if profile.name == UNKNOWN and len(allowed) > 1:
            allowed.pop(max(allowed, key=allowed.__getitem__))
        holder = standing if standing in allowed else profile.expert
        if abs(allowed.get(profile.expert, 9) - target) <= abs(allowed[holder] - target):
            holder = profile.expert
        nearest = min(allowed, key=lambda name: abs(allowed[name] - target))
        lead = abs(allowed[holder] - target) - abs(allowed[nearest] - target)
        return nearest if lead > EXPERT_MARGIN else holder


def load_tasks(path: Path | str = DEFAULT_TASKS) -> Tasks:
    """Reads a task table.

    Raises:
        InputError: The file is not TOML of the expected form, a number lies outside of its bounds, `unknown` is missing, a task
            names an expert without a pattern, or a pattern's `decoding` a setting that there is not.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        patterns = {name: float(row["level"]) for name, row in table["patterns"].items()}
        sampled = {name: dict(row["decoding"]) for name, row in table["patterns"].items() if "decoding" in row}
        profiles = {
            name: TaskProfile(name, float(row["desired"]), row["source"], row["expert"], float(row["usual_need"]))
            for name, row in table["tasks"].items()
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is not a task table like empathy_agent/tasks.toml: {error!r}") from error
    for name in [*patterns, *profiles]:
        if not NAME.fullmatch(name):
            raise InputError(f"{path}: {name[:80]!r} is no name: use at most 64 letters, digits, - and _")
    numbers = {f"patterns.{name}.level": level for name, level in patterns.items()}
    for profile in profiles.values():
        numbers |= {
            f"tasks.{profile.name}.desired": profile.desired,
            f"tasks.{profile.name}.usual_need": profile.usual_need,
        }
        if not isinstance(profile.source, str):
            raise InputError(f"{path}: tasks.{profile.name}.source is {profile.source!r}: it must be text")
        if not isinstance(profile.expert, str) or profile.expert not in patterns:
            raise InputError(
                f"{path}: task {profile.name} names expert {profile.expert!r}: known are {', '.join(patterns)}"
            )
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise InputError(f"{path}: {name} is {number}: it must lie between 0 and 1")
    if UNKNOWN not in profiles:
        raise InputError(f"{path}: add a [tasks.{UNKNOWN}] table for messages that are none of the tasks")
    if len(patterns) > 1 and profiles[UNKNOWN].expert == max(patterns, key=patterns.__getitem__):
        raise InputError(
            f"{path}: tasks.{UNKNOWN} names the expert with the highest level, which it never gets: name another"
        )
    return Tasks(profiles, patterns, decodings={name: _read_decoding(path, name, row) for name, row in sampled.items()})


def write_decoding(decoding: Decoding) -> str:
    """Writes the line of a pattern that says how its replies are sampled.

    >>> write_decoding(Decoding(temperature=0.4))
    'decoding = { temperature = 0.4, top_p = 0.9, repetition_penalty = 1.0, no_repeat_ngram_size = 6 }'
    """
    return f"decoding = {{ {', '.join(f'{name} = {getattr(decoding, name)}' for name in SAMPLED)} }}"


def _read_decoding(path: Path | str, pattern: str, row: dict[str, Any]) -> Decoding:
    if unknown := sorted(set(row) - set(SAMPLED)):
        raise InputError(
            f"{path}: patterns.{pattern}.decoding sets {unknown[0]!r:.80}: it may set {', '.join(SAMPLED)}"
        )
    try:
        return Decoding(**row)
    except InputError as error:
        raise InputError(f"{path}: patterns.{pattern}.decoding: {error}") from error
