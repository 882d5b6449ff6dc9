"""What is measured: a random Llama of 25 million parameters with four LoRA adapters, and conversations of the checkout.

Speed does not depend on what the weights say, so that the model need not be a trained one and may be larger than the shipped.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPERTS = ["factual", "considerate", "encouraging", "compassionate"]
SIZE = {
    "hidden_size": 384,
    "num_hidden_layers": 14,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
}
SMALLEST = {**SIZE, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONVERSATIONS = Path(__file__).parent.parent / "conversations"


def load_tokenizer() -> Any:
    """The shipped tokenizer."""
    from transformers import AutoTokenizer

    from empathy_agent.content import find_weights

    return AutoTokenizer.from_pretrained(find_weights("nano"))


def build_base(smallest: bool) -> Any:
    """A random Llama in bfloat16; every call builds the same."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(SMALLEST if smallest else SIZE),
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def build_peft(smallest: bool, *, activated: bool = False) -> Any:
    """The same with four random adapters of rank 16 on all projections, plain or activated by `<|assistant|>`."""
    from peft import LoraConfig, get_peft_model

    tokens = load_tokenizer()("<|assistant|>", add_special_tokens=False)["input_ids"] if activated else None
    arguments: dict[str, Any] = {"target_modules": MODULES, "task_type": "CAUSAL_LM", "alora_invocation_tokens": tokens}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(build_base(smallest), LoraConfig(r=16, lora_alpha=32, **arguments), EXPERTS[0])
        for name in EXPERTS[1:]:
            model.add_adapter(name, LoraConfig(r=16, lora_alpha=32, **arguments))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.02)
    return model.to(next(model.parameters()).dtype).eval()


def build_local(smallest: bool, *, activated: bool = False) -> Any:
    """The same as the worker serves it."""
    from empathy_agent.models import LocalModel
    from empathy_agent.stacking import stack_adapters

    model, rows = stack_adapters(build_peft(smallest, activated=activated))
    return LocalModel("benchmark", model.eval(), load_tokenizer(), rows, SIZE["max_position_embeddings"])


def list_conversations() -> list[dict[str, Any]]:
    """The written conversations of the checkout."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(CONVERSATIONS.glob("*.jsonl")))
    rows = (json.loads(line) for text in texts for line in text.split("\n") if line)
    return [row for row in rows if "turns" in row]


def list_exchanges(conversations: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yields what a user said and what was answered, from the conversations in turn, without end and without repeating."""
    number = 0
    while True:
        for conversation in conversations:
            for asked, answered in zip(conversation["turns"], conversation["turns"][1:], strict=False):
                if asked["role"] == "user" and answered["role"] == "assistant":
                    mark = f" ({number})" if number else ""
                    yield asked["content"] + mark, answered["content"] + mark
        number += 1
