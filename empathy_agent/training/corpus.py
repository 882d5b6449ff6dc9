"""Reads conversations and turns them into token sequences for training.

Does not train and knows nothing of models: `base.py` and `experts.py` do.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

SINGLES = {"unknown", "screening", "personas", "peers"}  # files of single messages among the conversations
IGNORED = -100  # label of a token that carries no loss, as torch.nn.functional.cross_entropy expects


def read_conversations(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the conversations of a JSONL file, or of every JSONL file of a folder in the order of their names.

    Raises:
        InputError: The path does not exist, or a line is not an object with `turns`.
    """
    if not path.exists():
        raise InputError(f"no conversations at {path}: give a JSONL file or a folder of them")
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    conversation = json.loads(line)
                    turns = conversation["turns"]
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{file}, line {number}: not an object with 'turns' ({error})") from error
                yield {**conversation, "source": file.stem, "turns": turns}


def list_conversations(folder: Path) -> list[dict[str, Any]]:
    """The written conversations of a folder, and those of its subfolder `plain`, without the files of single messages."""
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.stem not in SINGLES]
    files += sorted(folder.glob("plain/*.jsonl"))
    if not files:
        raise InputError(f"no conversations in {folder}: give the folder that holds the JSONL files of the tasks")
    return [conversation for path in files for conversation in read_conversations(path)]


def pick_half(conversation: str) -> int:
    """The half, 0 or 1, that a conversation's id falls into: preferences train on 0, the judge that checks them on 1.

    >>> [pick_half(f"therapy-00{i}") for i in range(1, 5)]
    [1, 1, 1, 0]
    """
    return zlib.crc32(conversation.encode()) % 2


def weigh(
    conversations: Iterable[dict[str, Any]], find_weight: Callable[[dict[str, Any]], float], rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Repeats or drops conversations so that one of weight 2.3 is read twice and, by chance, a third time."""
    for conversation in conversations:
        weight = find_weight(conversation)
        for _ in range(int(weight) + (rng.random() < weight % 1)):
            yield conversation


def pack_conversations(tokenizer: PreTrainedTokenizerBase, conversations: Iterable[dict[str, Any]]) -> np.ndarray:
    """Encodes conversations back to back as the chat template would, for training on every token.

    Returns:
        One-dimensional array of uint16 token ids; each conversation starts with the template's begin token.
    """
    import numpy as np

    begin, end = tokenizer.convert_tokens_to_ids(["<|begin|>", "<|end|>"])
    roles = {role: tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("system", "user", "assistant")}
    kept = [[turn for turn in conversation["turns"] if turn["content"].strip()] for conversation in conversations]
    tokenizer.backend_tokenizer.encode_special_tokens = True  # text that spells a control token stays text
    encoded = iter(
        tokenizer.backend_tokenizer.encode_batch_fast(
            [turn["content"].strip() for turns in kept for turn in turns], add_special_tokens=False
        )
    )
    tokenizer.backend_tokenizer.encode_special_tokens = False
    pieces: list[int] = []
    for turns in kept:
        pieces.append(begin)
        for turn in turns:
            pieces += [roles[turn["role"]], *next(encoded).ids, end]
    return np.asarray(pieces, dtype=np.uint16)
