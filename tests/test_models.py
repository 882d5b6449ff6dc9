from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from langchain_core.messages import HumanMessage

from empathy_agent import EmpathyEngine, ExpertChatModel, ModelError, build_graph
from empathy_agent.models import fingerprint_base, load_base, load_model
from tests.conftest import save_tiny_adapters, save_tiny_model


def test_any_model_in_the_hub_s_format_answers_with_its_adapters(tiny_model: Path, tiny_adapters: Path):
    engine = EmpathyEngine(model=str(tiny_model), adapters=str(tiny_adapters))
    state = (
        build_graph(engine=engine).compile().invoke({"messages": [{"role": "user", "content": "A funny film please"}]})
    )
    assert state["route"] == "adapter"
    assert state["messages"][-1].response_metadata["adapter"] == "factual"


def test_a_model_without_adapters_answers_by_the_prompt_route(tiny_model: Path):
    engine = EmpathyEngine(model=str(tiny_model))
    state = (
        build_graph(engine=engine).compile().invoke({"messages": [{"role": "user", "content": "A funny film please"}]})
    )
    assert state["route"] == "prompt"


def test_rows_without_an_adapter_are_exactly_the_base(tiny_model: Path, tiny_adapters: Path):
    stacked = load_model(str(tiny_model), tiny_adapters)
    base, tokenizer = load_base(str(tiny_model))
    ids = tokenizer("My parcel is late again.", return_tensors="pt").input_ids
    assert stacked.rows is not None
    with torch.no_grad():
        expected = base(ids).logits
        stacked.rows.choose([None], expected)
        assert torch.equal(stacked.model(ids).logits, expected)
        stacked.rows.choose(["factual"], expected)
        assert not torch.allclose(stacked.model(ids).logits, expected)


def test_an_adapter_of_another_base_is_refused_with_the_cure(tiny_adapters: Path, tmp_path: Path):
    other = save_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match=r"belongs to another base \(.*tiny\), not to .*other: train one for it with"):
        load_model(str(other), tiny_adapters)


def test_a_fingerprint_tells_bases_apart_that_have_one_name(tmp_path: Path):
    mine = save_tiny_model(tmp_path / "a" / "same", seed=1)
    theirs = save_tiny_model(tmp_path / "b" / "same", seed=2)
    adapters = save_tiny_adapters(mine, tmp_path / "adapters", ("factual",))
    card = {"base": "same", "base_fingerprint": fingerprint_base(load_base(str(mine))[0])}
    (adapters / "factual" / "expert.json").write_text(json.dumps(card), encoding="utf-8")
    assert load_model(str(mine), adapters).adapters == ["factual"]
    with pytest.raises(ModelError, match="belongs to another base"):
        load_model(str(theirs), adapters)


def test_a_damaged_weight_file_is_a_clear_error(tiny_model: Path, tiny_adapters: Path, tmp_path: Path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load the model .*broken"):
        load_base(str(broken))
    adapters = shutil.copytree(tiny_adapters, tmp_path / "adapters")
    (adapters / "factual" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot load the adapter .*factual"):
        load_model(str(tiny_model), adapters)
    (adapters / "factual" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="only safetensors are read"):
        load_model(str(tiny_model), adapters)


def test_a_missing_template_model_or_adapter_folder_is_a_clear_error(tiny_model: Path, tmp_path: Path):
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template: choose a chat or instruct model"):
        load_base(str(bare))
    with pytest.raises(ModelError, match="cannot load the model nobody/nothing"):
        load_base("nobody/nothing")
    with pytest.raises(ModelError, match="no adapters in"):
        load_model(str(tiny_model), tmp_path / "none")


def test_adapters_that_cannot_share_a_batch_are_refused(tiny_model: Path, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    model = get_peft_model(load_base(str(tiny_model))[0], config)
    model.peft_config["default"].base_model_name_or_path = str(tiny_model)
    model.save_pretrained(tmp_path / "dora")
    with pytest.raises(ModelError, match="'dora' uses DoRA"):
        load_model(str(tiny_model), tmp_path)


def test_chat_models_of_one_base_share_a_worker(tiny_model: Path, tiny_adapters: Path):
    one = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters), adapter="factual", temperature=0)
    two = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters))
    assert one.worker is two.worker
    bound = two.bind(adapter="factual", temperature=0).invoke([HumanMessage("Hello")])
    assert bound.text == one.invoke([HumanMessage("Hello")]).text
    assert bound.usage_metadata["output_tokens"] > 0
    assert bound.response_metadata["adapter"] == "factual"
