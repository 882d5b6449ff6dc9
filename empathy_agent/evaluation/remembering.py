"""Remembers what a judge that costs money said, so that no reply is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from empathy_agent.evaluation.judging import Case

TOGETHER = 64  # cases that are judged before what was said is written down


def remember(path: Path, name: str, rate: Callable[[list[Case]], Sequence[Any]]) -> Callable[[list[Case]], list[Any]]:
    """Wraps a judge: what stands in `path` is not asked for again. Failures are not remembered, so that a new run tries again.

    Args:
        path: JSONL file of `{"case", "rating"}`; a torn last line is left out.
        name: Of the judge's model, part of a case's key.
        rate: The judge, as `judging.add_ratings` takes it.
    """

    def ask(cases: list[Case]) -> list[Any]:
        keys = [_hash_case(name, case) for case in cases]
        known = _read(path)
        waiting = {key: case for key, case in zip(keys, cases, strict=True) if key not in known}
        failed: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(waiting), TOGETHER):
            block = dict(list(waiting.items())[start : start + TOGETHER])
            ratings = dict(zip(block, rate(list(block.values())), strict=True))
            good = {key: rating for key, rating in ratings.items() if "failure" not in rating}
            with path.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps({"case": k, "rating": v}, ensure_ascii=False) + "\n" for k, v in good.items()
                )
            known |= good
            failed |= {key: rating for key, rating in ratings.items() if "failure" in rating}
        return [known.get(key, failed.get(key)) for key in keys]

    return ask


def _hash_case(name: str, case: Case) -> str:
    return hashlib.sha256(json.dumps([name, *case], ensure_ascii=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return {row["case"]: row["rating"] for row in map(json.loads, whole.splitlines())}
