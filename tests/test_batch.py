"""Rows of a batch give the logits that each gives alone, however they are read, joined and left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from empathy_agent.batch import ROOM, Batch
from empathy_agent.models import LocalModel, load_model

PROMPTS = [[11, 12, 13, 14, 15, 16, 17], [21, 22, 23], [31] * 40]
ADAPTERS = ["factual", None, "compassionate"]


@pytest.fixture(scope="module")
def local(tiny_model: Path, tiny_adapters: Path) -> LocalModel:
    return load_model(str(tiny_model), tiny_adapters)


def feed_alone(local: LocalModel, tokens: list[int], adapter: str | None) -> torch.Tensor:
    batch = Batch(local)
    batch.add([adapter], [0])
    return batch.feed([tokens])[0]


def test_prompts_read_in_uneven_parts_give_the_same_logits(local: LocalModel):
    batch = Batch(local)
    batch.add(ADAPTERS, [0, 0, 0])
    batch.feed([prompt[:2] for prompt in PROMPTS])
    batch.feed([prompt[2:5] for prompt in PROMPTS])
    batch.keep([0, 2])
    logits = batch.feed([PROMPTS[0][5:], PROMPTS[2][5:]])
    for row, which in enumerate((0, 2)):
        assert torch.allclose(logits[row], feed_alone(local, PROMPTS[which], ADAPTERS[which]), atol=1e-4)


def test_a_row_moves_between_batches_and_outgrows_its_room(local: LocalModel):
    reading, writing = Batch(local), Batch(local)
    reading.add(ADAPTERS, [0, 0, 0])
    reading.feed(PROMPTS)
    writing.add(["factual"], [0])
    writing.feed([PROMPTS[2]])
    writing.add(ADAPTERS, [0, 0, 0], [reading.take(row) for row in range(3)])
    more = list(range(40, 40 + ROOM + 3))
    for token in more:
        logits = writing.feed([[token]] * 4)
    expected = feed_alone(local, [*PROMPTS[1], *more], None)
    assert torch.allclose(logits[2], expected, atol=1e-3)
    writing.keep([2])
    assert writing._mask.shape[1] == len(PROMPTS[1]) + len(more), "columns of padding are dropped"
    assert writing.take(0, 5).length == 5
    again = Batch(local)
    again.add([None], [0], [writing.take(0, len(PROMPTS[1]))])
    assert torch.allclose(again.feed([more])[0], expected, atol=1e-3)
