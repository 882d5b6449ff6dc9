"""`train preference` on tiny models: pairs that fit, adapters that move away from their reference, mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from empathy_agent.commands.train import write_preferences
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError, ModelError
from empathy_agent.exemplars import build_index
from empathy_agent.models import fingerprint_base, load_base, load_model
from empathy_agent.tasks import load_tasks
from empathy_agent.template import encode_chat
from empathy_agent.training.corpus import list_conversations
from empathy_agent.training.examples import SystemWriter
from empathy_agent.training.experts import train_experts
from empathy_agent.training.pairs import list_pairs, measure_likelier
from empathy_agent.training.preference import train_preference
from tests.conftest import save_tiny_model
from tests.tiny_training import TINY, hash_files, read_lines, save_few

PREFERENCE = {
    **TINY,
    "beta": 0.1,
    "loss_type": ["sigmoid"],
    "train_pairs": 4,
    "test_pairs": 2,
    "learning_rate": 0.02,
    "longest": 2000,
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_few(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    given: dict[str, Any] = {"tasks": load_tasks(), "settings": {**TINY, "longest": 300}, "experts": ["factual"]}
    train_experts(base=str(tiny_model), conversations=few, out=out, **given)
    return out


def prefer(base: Path, trained: Path, few: Path, engine: EmpathyEngine, out: Path, **changes: Any) -> dict[str, Any]:
    experts = changes.pop("experts", ["factual"])
    given: dict[str, Any] = {"tasks": load_tasks(), "settings": {**PREFERENCE, **changes}, "encoder": engine.encoder}
    return train_preference(base=str(base), adapters=trained, conversations=few, out=out, experts=experts, **given)


@pytest.mark.parametrize("losses", [["sigmoid"], ["ipo", "sft"]])
def test_preferences_move_the_adapter_but_not_its_reference_and_are_noted_in_the_card(
    tiny_model: Path, trained: Path, few: Path, engine: EmpathyEngine, tmp_path: Path, losses: list[str]
):
    kept = hash_files(tiny_model), hash_files(trained)
    found = prefer(tiny_model, trained, few, engine, tmp_path, loss_type=losses)["factual"]
    assert (hash_files(tiny_model), hash_files(trained)) == kept
    assert found["margin"] != 0
    before, after = (load_file(folder / "factual" / "adapter_model.safetensors") for folder in (trained, tmp_path))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    old, card = (json.loads((f / "factual" / "expert.json").read_text(encoding="utf-8")) for f in (trained, tmp_path))
    told = {"settings": {**PREFERENCE, "loss_type": losses}, "seed": 0, "pairs": 4, "measured": found}
    assert card == {**old, "preference": told}
    assert card["base_fingerprint"] == fingerprint_base(load_base(str(tiny_model))[0])
    assert load_model(str(tiny_model), tmp_path).adapters == ["factual"]
    assert not (tmp_path / "factual" / "checkpoints").exists()
    log = read_lines(tmp_path / "factual" / "losses.jsonl")
    assert [line["step"] for line in log] == [0, 4]
    if losses == ["sigmoid"]:
        assert log[0]["dev_loss"] == pytest.approx(math.log(2), abs=1e-4)  # the adapter is its own reference
    assert round(log[-1]["dev_loss"], 4) == found["loss"]
    table = write_preferences({"factual": found}).splitlines()
    assert table[2].split("|")[1:-1] == [
        " factual ",
        " before ",
        " – ",
        " 0 ",
        f" {found['likelier_before']:.1%} ".replace("%", " %"),
    ]
    assert f" {found['margin']:.2f} " in table[3].split("|")


def test_pairs_keep_whole_replies_and_lose_their_oldest_turns(tiny_model: Path, few: Path, engine: EmpathyEngine):
    _, tokenizer = load_base(str(tiny_model))
    written, tasks = list_conversations(few), load_tasks()

    def count(turns: list[Any]) -> int:
        return sum(len(piece) for piece, _ in encode_chat(tokenizer, turns, reply_follows=False))

    def pair(longest: int) -> list[Any]:
        writer = SystemWriter(engine.encoder, build_index(engine.encoder), 0, {"fitting": 1.0})
        return list_pairs(written, tasks, "compassionate", writer, 0, tokenizer=tokenizer, longest=longest)

    whole = pair(10_000)
    sizes = sorted(max(count([*p["prompt"], *p[side]]) for side in ("chosen", "rejected")) for p in whole)
    middle = sizes[len(sizes) // 2]
    cut = pair(middle)
    assert all(count([*p["prompt"], *p[side]]) <= middle for p in cut for side in ("chosen", "rejected"))
    assert len(whole) // 2 < len(cut) <= len(whole)
    turns = {(p["chosen"][0]["content"], p["rejected"][0]["content"]): len(p["prompt"]) for p in whole}
    lost = {turns[p["chosen"][0]["content"], p["rejected"][0]["content"]] - len(p["prompt"]) for p in cut}
    assert lost == {0, 2}
    said = {turn["content"] for conversation in written for turn in conversation["turns"]}
    for p in cut:
        assert [turn["role"] for turn in p["prompt"][:2]] == ["system", "user"]
        assert p["chosen"][0]["content"] in said
        assert p["rejected"][0]["content"] not in said
    assert pair(20) == []


def test_likelier_is_counted_per_token_of_the_reply_alone(tiny_model: Path):
    model, tokenizer = load_base(str(tiny_model))
    with torch.no_grad():  # a model that writes nothing but the letter a
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        letter = tokenizer.convert_tokens_to_ids("a")
        hook = model.lm_head.register_forward_hook(
            lambda module, given, logits: logits.index_fill(-1, torch.tensor([letter]), 5.0)
        )
    system, ask = {"role": "system", "content": "zzz"}, {"role": "user", "content": "aaaa"}
    pairs = [
        {
            "prompt": [system, ask],
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
        }
        for good, bad in (("a a a a a a", "z"), ("aaaaaaaa", "azzzzzzz"), ("zzzz", "aaaa"), ("aaaaaa", "aa"))
    ]
    share = measure_likelier(model, tokenizer, pairs, 500)
    hook.remove()
    assert share == 0.75


def test_mistakes_are_said_before_training(
    tiny_model: Path, trained: Path, few: Path, engine: EmpathyEngine, tmp_path: Path
):
    other = save_tiny_model(tmp_path / "others" / tiny_model.name, seed=1)
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="factual belongs to another base .*: train one for it with"):
        prefer(other, trained, few, engine, out)
    for wrong, error in (
        ({"experts": ["gushing"]}, "no expert gushing: choose from factual"),
        ({"loss_type": ["magic"]}, r"loss_type is \['magic'\]: list one or more of sigmoid, "),
        ({"loss_type": []}, r"loss_type is \[\]"),
        ({"longest": 20}, "factual: 0 pairs to train on and 0 to measure: .* that fit into 20 tokens"),
    ):
        with pytest.raises(InputError, match=error):
            prefer(tiny_model, trained, few, engine, out, **wrong)
    with pytest.raises(ModelError, match="has no adapter_model.safetensors"):
        prefer(tiny_model, trained, few, engine, out, experts=["compassionate"])
    assert not out.exists()
