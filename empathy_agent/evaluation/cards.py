"""Says which judge measured, what it saw, and whether anything it judges was chosen or trained by it.

A judge that also picks among drafts, or that chose what an expert learned to prefer, is graded by its own taste: its numbers
are of use, but are no independent check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError, ModelError
from empathy_agent.heads import Head, load_head

CARD = "judge.json"  # beside judge.safetensors: what the head was trained on


def load_judge(folder: Path, engine: EmpathyEngine) -> Head:
    """Loads `judge.safetensors` of a folder of heads, on the engine's encoder.

    Raises:
        InputError: The folder holds none.
        ModelError: It is damaged, or of another encoder.
    """
    path = folder / "judge.safetensors"
    if not path.is_file():
        raise InputError(f"no judge.safetensors in {folder}: --judge takes a folder that `train heads` wrote")
    return load_head(path, engine.encoder.fingerprint)


def write_card(
    folder: Path, head: Head, *, scenarios_sha256: str | None, picker: Head | None, adapters: Path | None
) -> dict[str, Any]:
    """Describes the learned judge.

    Args:
        folder: Of the judge's head.
        head: The head itself.
        scenarios_sha256: Of what systems are played against; a judge whose card names it has seen it.
        picker: The head by which a played system chose among its drafts; None where none did.
        adapters: Folder of the expert adapters, whose cards name the selector of their preference training by its hash.

    Returns:
        `name`, `sha256`, `saw` (the whole card, None without one), `independent`, which is None where no card says what was
        seen, and `reasons`.
    """
    sha256 = hash_judge(folder)
    saw = _read_card(folder / CARD)
    reasons = []
    if picker is not None and _is_same(head, picker):
        reasons.append("a system chooses among its drafts with this judge (candidates or max_revisions)")
    for path in sorted(adapters.glob("*/expert.json")) if adapters else []:
        if sha256 in _list_texts(_read_card(path)):
            reasons.append(f"expert {path.parent.name} was trained on what this judge preferred")
    if scenarios_sha256 and scenarios_sha256 in _list_texts(saw):
        reasons.append("it was trained on these scenarios")
    independent = False if reasons else None if saw is None else True
    if saw is None:
        reasons.append(f"no {CARD} beside the head says what it was trained on")
    return {"name": folder.name, "sha256": sha256, "saw": saw, "independent": independent, "reasons": reasons}


def check_independent(card: Mapping[str, Any]) -> None:
    """Refuses a judge that was given as an independent one and is not.

    Raises:
        InputError: It took part in what it would judge.
    """
    if card["independent"] is False:
        raise InputError(
            f"--judge {card['name']} is no independent check: {'; '.join(card['reasons'])}. Give one that was trained on other "
            "folds, play with --set candidates=1 --set max_revisions=0, or leave --judge out to have the numbers with that said "
            "beside them"
        )


def hash_judge(folder: Path) -> str:
    """SHA-256 of a folder's `judge.safetensors`.

    Raises:
        ModelError: There is none.
    """
    try:
        return hashlib.sha256((folder / "judge.safetensors").read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the judge in {folder}: {error}") from error


def _is_same(head: Head, other: Head) -> bool:
    import numpy as np

    return head.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(tensor, other.tensors[name]) for name, tensor in head.tensors.items()
    )


def _read_card(path: Path) -> dict[str, Any] | None:
    try:
        card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ModelError(f"the card {path} is damaged: {error}") from error
    return card if isinstance(card, dict) else None


def _list_texts(value: Any) -> set[str]:
    """Every text in a card, however deep: hashes are found by value, whatever their key is called."""

    def walk(part: Any) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            for inner in part.values():
                yield from walk(inner)
        elif isinstance(part, Sequence):
            for inner in part:
                yield from walk(inner)

    return set(walk(value))
