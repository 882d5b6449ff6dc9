"""Models with sliding windows write what transformers writes, whatever shares their batch; others that cannot are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, Lfm2Config, MistralConfig, Qwen2Config

from empathy_agent.decoding import Decoding
from empathy_agent.errors import ModelError
from empathy_agent.models import LocalModel, load_base
from empathy_agent.replies import Reply
from empathy_agent.turns import Turn
from empathy_agent.worker import Worker

WINDOW = 16
GREEDY = Decoding(temperature=0, no_repeat_ngram_size=0, max_new_tokens=30)
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "sliding_window": WINDOW,
    "initializer_range": 0.3,  # so that what is written depends on what is seen
    "tie_word_embeddings": False,
}
KINDS = ["sliding_attention", "full_attention"]
FAMILIES: dict[str, Any] = {
    "mistral": (MistralConfig, {}),  # every layer slides
    "gemma2": (Gemma2Config, {"head_dim": 8, "query_pre_attn_scalar": 8, "layer_types": KINDS}),
    "gemma3": (Gemma3TextConfig, {"head_dim": 8, "layer_types": KINDS}),
    "qwen2": (Qwen2Config, {"use_sliding_window": False}),  # none does, though a window is named
}


def build(tiny_model: Path, config: Any, **changes: Any) -> LocalModel:
    tokenizer = load_base(str(tiny_model))[1]
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config(**TINY, **ends, vocab_size=len(tokenizer), **changes))
    return LocalModel("tiny", model.eval(), tokenizer, None, 512)


def generate(local: LocalModel, prompt: list[int]) -> str:
    """What transformers writes by itself."""
    ids, tokenizer = torch.tensor([prompt]), local.tokenizer
    control = [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
    written = local.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=GREEDY.max_new_tokens,
        do_sample=False,
        suppress_tokens=control,
    )
    return str(tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).rstrip("\ufffd"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_writes_what_transformers_writes_alone(tiny_model: Path, family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("empathy_agent.prefixes.LEAST", 4)
    monkeypatch.setattr("empathy_agent.worker.READ_ALONE", 60)
    monkeypatch.setattr("empathy_agent.worker.READ_BETWEEN", 30)
    local = build(tiny_model, FAMILIES[family][0], **FAMILIES[family][1])
    worker = Worker(local)
    asked = [[Turn(role="user", content=f"{n} films? " * n)] for n in (1, 5, 9, 14)]
    with worker._changed:  # their prompts are read side by side, in parts, and end at different steps
        replies = [worker.submit(turns, None, GREEDY) for turns in asked]
    texts = ["".join(reply) for reply in replies]
    again: list[Reply] = []
    for turns, text in zip(asked, texts, strict=True):
        more = [*turns, Turn(role="assistant", content=text), Turn(role="user", content="And then?")]
        again.append(worker.submit(more, None, GREEDY))
    texts += ["".join(reply) for reply in again]
    worker.close()
    assert max(len(reply.prompt) for reply in replies) > 4 * WINDOW
    assert all(reply.usage["input_token_details"]["cache_read"] for reply in again), "it goes on from its first turn"
    assert texts == [generate(local, reply.prompt) for reply in [*replies, *again]]
    assert len(set(texts)) == len(texts)


def test_layers_that_cannot_share_a_batch_are_named(tiny_model: Path):
    local = build(tiny_model, Lfm2Config, layer_types=["conv", "full_attention"])
    with pytest.raises(ModelError, match="tiny has layers of the kind conv: .*base_url"):
        Worker(local)
