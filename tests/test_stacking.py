"""Stacked adapters against PEFT's own forward, plain and activated, in a mixed batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from empathy_agent.errors import InputError, ModelError
from empathy_agent.models import load_base
from empathy_agent.stacking import stack_adapters

EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
INVOCATION = [5]


def adapt(folder: Path, **changes: object) -> PeftModel:
    """A tiny base with a plain adapter on two layers and an activated one of another rank on all."""
    base, _ = load_base(str(folder))
    plain = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **changes)
    activated = LoraConfig(
        r=8, lora_alpha=8, target_modules=EVERYWHERE, task_type="CAUSAL_LM", alora_invocation_tokens=INVOCATION
    )
    model = get_peft_model(base.float(), plain, adapter_name="plain")
    model.add_adapter("activated", activated)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    return model.eval()


def test_a_mixed_batch_equals_peft_for_plain_and_activated_adapters_and_the_base(tiny_model: Path):
    torch.manual_seed(0)
    ids = torch.randint(10, 300, (4, 12))
    ids[:, 3] = ids[:, 7] = INVOCATION[0]  # the last invocation counts
    names = ["plain", "__base__", "activated", "plain"]
    model = adapt(tiny_model)
    with torch.inference_mode():
        expected = model(input_ids=ids, adapter_names=names).logits
        stacked, rows = stack_adapters(model)
        adapters = [None if name == "__base__" else name for name in names]
        starts = torch.tensor([rows.find_start(a, ids[0].tolist()) for a in adapters])
        assert starts.tolist() == [0, 0, 7, 0]
        rows.choose(adapters, expected, torch.arange(12) >= starts[:, None])
        found = stacked(input_ids=ids).logits
        plain = load_base(str(tiny_model))[0].float()
        base = plain(input_ids=ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found[1], base[1], atol=1e-5)
    assert torch.allclose(found[2, :7], base[2, :7], atol=1e-5)
    assert not torch.allclose(found[2, 7:], base[2, 7:], atol=1e-2)
    assert stacked.num_parameters() == plain.num_parameters(), "the base is held and counted once"


@pytest.mark.parametrize("name", ["plain", "activated"])
def test_one_adapter_for_all_rows_equals_peft(tiny_model: Path, name: str):
    ids = torch.randint(10, 300, (3, 9))
    ids[:, 0] = INVOCATION[0]  # from the first token on
    model = adapt(tiny_model)
    with torch.inference_mode():
        expected = model(input_ids=ids, adapter_names=[name] * 3).logits
        stacked, rows = stack_adapters(model)
        rows.choose([name] * 3, expected)
        assert rows.only
        assert torch.allclose(stacked(input_ids=ids).logits, expected, atol=1e-5)


def test_without_adapters_nothing_is_added(tiny_model: Path):
    ids = torch.randint(10, 300, (2, 9))
    with torch.inference_mode():
        expected = load_base(str(tiny_model))[0].float()(input_ids=ids).logits
        stacked, rows = stack_adapters(adapt(tiny_model))
        rows.choose([None, None], expected)
        assert torch.allclose(stacked(input_ids=ids).logits, expected, atol=1e-5)


def test_a_prompt_that_activates_nothing_is_refused(tiny_model: Path):
    _, rows = stack_adapters(adapt(tiny_model))
    with pytest.raises(InputError, match="'activated' is activated by the tokens \\[5\\]"):
        rows.find_start("activated", [1, 2, 3])


def test_what_cannot_share_a_batch_is_refused(tiny_model: Path):
    with pytest.raises(ModelError, match="'plain' uses DoRA"):
        stack_adapters(adapt(tiny_model, use_dora=True))
