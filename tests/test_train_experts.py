"""`train experts`, `train user` and `train chat` on tiny models: what moves, what stays, what goes on, and what is noted."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import empathy_agent.training.chat as chat
import empathy_agent.training.tuning as tuning
from empathy_agent.errors import InputError, ModelError
from empathy_agent.models import fingerprint_base, load_base, load_model
from empathy_agent.tasks import load_tasks
from empathy_agent.training.chat import train_chat
from empathy_agent.training.corpus import IGNORED, pick_half
from empathy_agent.training.experts import train_experts
from empathy_agent.training.user import train_user
from tests.conftest import save_tiny_model
from tests.tiny_training import (
    CONVERSATIONS,
    TINY,
    hash_files,
    interrupt,
    note_steps,
    read_lines,
    save_every,
    save_few,
    watch,
)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_few(tmp_path_factory.mktemp("few"))


def train(what: str, base: Path, few: Path, out: Path, **changes: Any) -> dict[str, float]:
    """Trains one adapter and returns what was measured."""
    given: dict[str, Any] = {"base": str(base), "conversations": few, "out": out, "settings": {**TINY, **changes}}
    if what == "user":
        return train_user(**given, seed=3)
    return train_experts(**given, tasks=load_tasks(), experts=[what], seed=3)[what]


@pytest.mark.parametrize(
    ("what", "activated"), [("compassionate", False), ("compassionate", True), ("universal", False), ("user", False)]
)
def test_an_adapter_moves_wholly_its_base_not_at_all_and_its_card_says_how(
    tiny_model: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, activated: bool
):
    seen, files = watch(monkeypatch, tuning), hash_files(tiny_model)
    save_every(monkeypatch, 2)
    measured = train(what, tiny_model, few, tmp_path, activated=activated)
    assert {name for name, moved in seen["moved"].items() if moved} == {n for n in seen["moved"] if "lora_" in n}
    assert len([name for name in seen["moved"] if "lora_" in name]) == 2 * 2 * 3  # two layers, three modules, A and B
    assert hash_files(tiny_model) == files
    assert measured["dev_loss_after"] < measured["dev_loss_before"]

    card = json.loads((tmp_path / what / "expert.json").read_text(encoding="utf-8"))
    assert card == {
        "base": str(tiny_model),
        "revision": None,
        "base_fingerprint": fingerprint_base(load_base(str(tiny_model))[0]),
        "data_sha256": hashlib.sha256(json.dumps([e["input_ids"] for e in seen["train"]]).encode()).hexdigest(),
        "settings": {**TINY, "activated": activated},
        "seed": 3,
        "measured": measured,
    }
    assert sorted(path.name for path in (tmp_path / what).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
        "losses.jsonl",
    ]
    first, *steps, last = read_lines(tmp_path / what / "losses.jsonl")
    assert (first["step"], round(first["dev_loss"], 4)) == (0, measured["dev_loss_before"])
    assert (last["step"], round(last["dev_loss"], 4)) == (len(seen["train"]), measured["dev_loss_after"])
    assert [line["step"] for line in steps] == list(range(2, last["step"] + 1, 2))
    assert all(math.isfinite(line["loss"]) and 0 <= line["learning_rate"] <= 0.05 for line in steps)

    served = load_model(str(tiny_model), tmp_path)
    assert served.adapters == [what]
    assert served.rows is not None
    prompt = [1, 4, 7, 8, 5]  # <|begin|> <|user|> … <|assistant|>
    assert served.rows.find_start(what, prompt) == (4 if activated else 0)
    other = save_tiny_model(tmp_path / "others" / tiny_model.name, seed=1)
    (tmp_path / "trained").mkdir()
    (tmp_path / what).rename(tmp_path / "trained" / what)
    with pytest.raises(ModelError, match=f"{what} belongs to another base .*: train one for it with"):
        load_model(str(other), tmp_path / "trained")


@pytest.mark.parametrize("what", ["universal", "user"])
def test_an_interrupted_adapter_goes_on_and_ends_where_it_would_have(
    tiny_model: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    save_every(monkeypatch, 3)
    whole = train(what, tiny_model, few, tmp_path / "whole")
    torch.rand(3)  # what is drawn between two trainings must not matter
    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(what, tiny_model, few, tmp_path / "parts")
    assert [path.name for path in (tmp_path / "parts" / what / "checkpoints").iterdir()] == ["checkpoint-3"]
    steps = note_steps(monkeypatch)
    assert train(what, tiny_model, few, tmp_path / "parts") == whole
    once, twice = (load_file(tmp_path / out / what / "adapter_model.safetensors") for out in ("whole", "parts"))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
    logs = [read_lines(tmp_path / out / what / "losses.jsonl") for out in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert steps == set(range(3, logs[0][-1]["step"]))


CHAT = {**TINY, "half": 1, "passes": 2, "public": 3, "described": 0.5, "longest": 1500, "learning_rate": 0.005}


def test_the_chat_stage_moves_every_weight_on_its_half_and_goes_on_when_interrupted(
    tiny_model: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    public = tmp_path / "public"
    public.mkdir()
    turns = [{"role": "user", "content": "Is it far?"}, {"role": "assistant", "content": "No."}]
    for name in chat.PUBLIC:
        (public / f"{name}.jsonl").write_text(json.dumps({"id": name, "turns": turns}) + "\n", encoding="utf-8")
    given: dict[str, Any] = {"base": tiny_model, "conversations": few, "data": public, "settings": CHAT, "seed": 3}
    seen, files = watch(monkeypatch, chat), hash_files(tiny_model)
    save_every(monkeypatch, 4)
    whole = train_chat(out=tmp_path / "whole", **given)
    assert all(seen["moved"].values())
    assert whole["dev_loss_after"] < whole["dev_loss_before"]
    assert hash_files(tiny_model) == files
    mine = [row for path in few.iterdir() for row in read_lines(path) if row["split"] == "train"]
    assert len(seen["train"]) == 2 * sum(len(row["turns"]) // 2 for row in mine if pick_half(row["id"]) == 1) + 3

    model, tokenizer = load_base(str(tmp_path / "whole"))
    assert model.dtype == torch.bfloat16
    assert tokenizer.chat_template == load_base(str(tiny_model))[1].chat_template
    assert not (tmp_path / "whole" / "checkpoints").exists()
    log = read_lines(tmp_path / "whole" / "losses.jsonl")
    assert [line["step"] for line in log] == [0, *range(4, len(seen["train"]) + 1, 4), len(seen["train"])]

    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_chat(out=tmp_path / "parts", **given)
    assert (tmp_path / "parts" / "checkpoints" / "checkpoint-4").is_dir()
    steps = note_steps(monkeypatch)
    assert train_chat(out=tmp_path / "parts", **given) == whole
    assert steps == set(range(4, len(seen["train"])))
    once, twice = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "parts"))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_short_way_of_the_loss_is_the_trainer_s_own_and_counts_learned_tokens_only(
    tiny_model: Path, tmp_path: Path
):
    model, tokenizer = load_base(str(tiny_model))
    model = model.float()
    torch.manual_seed(0)
    # Ragged sequences, so that each batch of two is padded, and most of what is read carries no loss.
    examples = [
        {"input_ids": (ids := torch.randint(6, 400, (n,)).tolist()), "labels": [IGNORED] * (n - k) + ids[n - k :]}
        for n, k in ((60, 3), (9, 8), (31, 1), (12, 5))
    ]
    with torch.no_grad():
        nats = [
            torch.nn.functional.cross_entropy(
                model(input_ids=torch.tensor([e["input_ids"]])).logits[0, :-1],
                torch.tensor(e["labels"][1:]),
                ignore_index=IGNORED,
                reduction="sum",
            ).item()
            for e in examples
        ]
    counts = [sum(label != IGNORED for label in e["labels"]) for e in examples]
    settings = {**TINY, "batch_size": 2, "accumulate": 2, "epochs": 4}
    found = {}
    for way in ("short", "plain"):
        mine = copy.deepcopy(model)
        mine.config.logit_scale = 1.0 if way == "plain" else None  # a setting of `SCALED`, which Llama does not know
        measured = tuning.tune(mine, tokenizer, examples, examples, settings, tmp_path / way / "checkpoints", 0)
        found[way] = measured, mine.state_dict()
    # The Trainer's mean over batches, each the mean over its learned tokens; batches are in the order of the list.
    expected = sum(sum(nats[i : i + 2]) / sum(counts[i : i + 2]) for i in (0, 2)) / 2
    for way in ("short", "plain"):
        assert found[way][0]["dev_loss_before"] == pytest.approx(expected, abs=0.005)
    assert found["short"][0]["dev_loss_after"] == pytest.approx(found["plain"][0]["dev_loss_after"], abs=0.05)
    assert found["short"][0]["dev_loss_after"] < expected - 0.5
    moved = [(found[way][1][name] - tensor).flatten() for way in found for name, tensor in model.state_dict().items()]
    short, plain = torch.cat(moved[: len(moved) // 2]), torch.cat(moved[len(moved) // 2 :])
    assert torch.nn.functional.cosine_similarity(short, plain, dim=0) > 0.95


def test_who_cannot_be_trained_is_said_before_anything_is(tiny_model: Path, few: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no expert gushing: choose from factual"):
        train("gushing", tiny_model, few, tmp_path)
    with pytest.raises(InputError, match="no conversations in .*: give the folder"):
        train("universal", tiny_model, CONVERSATIONS / "nothing", tmp_path)
    assert not list(tmp_path.iterdir())
