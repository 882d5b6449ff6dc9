"""A corpus on disk: a folder of conversations with the files beside them, and a folder of exemplars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    from empathy_agent.encoder import Encoder

Row = dict[str, Any]
SINGLES = ("personas", "unknown", "screening", "peers")
TOGETHER = 512  # texts encoded between two steps of the progress bar


@dataclass(frozen=True)
class Corpus:
    """The lines of a folder of conversations and of one of exemplars, as they were read."""

    conversations: list[Row]
    exemplars: list[Row]
    singles: dict[str, list[Row]] = field(default_factory=dict)


def read_rows(path: Path) -> list[Row]:
    """Reads a JSONL file of objects; empty lines are left out.

    Raises:
        InputError: The file cannot be read, or a line is not a JSON object; the message names the line.
    """
    rows: list[Row] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise InputError(f"{path}, line {number}: it must be a JSON object, not {line.strip()[:40]!r}")
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not JSON ({error}): mend or delete the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} as UTF-8 text: {error}") from error
    return rows


def read_corpus(conversations: Path | None, exemplars: Path | None) -> Corpus:
    """Reads every `*.jsonl` of the folders; None stands for nothing.

    Raises:
        InputError: A folder does not exist or holds no JSONL file, or a line is not a JSON object.
    """
    for folder in (conversations, exemplars):
        if folder and not any(folder.glob("*.jsonl")):
            raise InputError(f"no *.jsonl in {folder}: give a folder of them, as conversations/ of the repository")
    files = sorted(conversations.glob("*.jsonl")) if conversations else []
    return Corpus(
        [row for path in files if path.stem not in SINGLES for row in read_rows(path)],
        [row for path in sorted(exemplars.glob("*.jsonl")) for row in read_rows(path)] if exemplars else [],
        {path.stem: read_rows(path) for path in files if path.stem in SINGLES},
    )


def list_texts(corpus: Corpus) -> list[str]:
    """Every text whose embedding the gates read, each once."""
    turns = [turn for row in corpus.conversations for turn in _list_turns(row)]
    texts = [turn.get("content") for turn in turns] + [row.get("reply") for row in corpus.exemplars]
    return list(dict.fromkeys(text for text in texts if isinstance(text, str)))


def _list_turns(row: Row) -> list[Row]:
    turns = row.get("turns")
    return [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []


def encode_corpus(corpus: Corpus, encoder: Encoder, on_block: Callable[[int], None] = lambda done: None) -> int:
    """Encodes the corpus into the encoder's memory and tells `on_block` how many texts each step added.

    Returns:
        The number of texts, at most `remembered` of which the encoder keeps.
    """
    texts = list_texts(corpus)
    for start in range(0, len(texts), TOGETHER):
        encoder.encode(texts[start : start + TOGETHER], batch_size=64)
        on_block(min(TOGETHER, len(texts) - start))
    return len(texts)
