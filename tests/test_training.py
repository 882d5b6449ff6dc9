"""Training on tiny models: what should move moves, what should stay stays, and interrupted runs go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from empathy_agent.content import find_content
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError, MissingExtraError, ModelError
from empathy_agent.models import fingerprint_base, load_base, load_model
from empathy_agent.tasks import load_tasks
from empathy_agent.template import find_invocation
from empathy_agent.training.base import train_base
from empathy_agent.training.corpus import IGNORED, pack_conversations, read_conversations
from empathy_agent.training.examples import build_examples, encode_example
from empathy_agent.training.experts import shows_pattern, train_experts
from empathy_agent.training.preference import train_preference
from empathy_agent.training.user import encode_user, train_user
from empathy_agent.turns import Turn

CONVERSATIONS = find_content("prompts").parent / "conversations"
TINY = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "modules": ["q_proj", "v_proj", "down_proj"],
    "activated": False,
    "passes": 1,
    "plain_passes": 1,
    "most": 100,
    "longest": 1500,
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": 0.01,
    "warmup_steps": 1,
    "weight_decay": 0.0,
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first conversations of two tasks, one of each kept for measuring."""
    folder = tmp_path_factory.mktemp("few")
    for task in ("therapy", "movie_recommendation"):
        rows = [
            json.loads(line) for line in (CONVERSATIONS / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()[:8]
        ]
        rows[-1]["split"] = "test"
        rows[0]["split"] = "train"
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_only_the_learned_turns_and_their_ends_carry_loss(tiny_model: Path):
    _, tokenizer = load_base(str(tiny_model))
    turns = [
        Turn(role="user", content="hello"),
        Turn(role="assistant", content="yes?"),
        Turn(role="user", content="bye"),
    ]
    example = encode_example(tokenizer, turns, lambda index: index == 1, 100)
    assert example is not None
    learned = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(learned) == "yes?<|end|>"
    at = [i for i, label in enumerate(example["labels"]) if label != IGNORED]
    assert [example["input_ids"][i] for i in at] == learned


def test_packing_for_the_base_equals_the_chat_template(tiny_model: Path):
    _, tokenizer = load_base(str(tiny_model))
    turns = [{"role": "user", "content": "hello <|end|>"}, {"role": "assistant", "content": " yes? "}]
    packed = pack_conversations(tokenizer, [{"turns": turns}])
    example = encode_example(tokenizer, turns, lambda index: True, 100)
    assert example is not None
    assert packed.tolist() == example["input_ids"]
    assert packed.dtype == np.uint16


def test_every_expert_has_turns_that_show_its_pattern():
    tasks = load_tasks()
    shown: dict[str, int] = dict.fromkeys(tasks.patterns, 0)
    for task in set(tasks.profiles) - {"unknown"}:
        for conversation in read_conversations(CONVERSATIONS / f"{task}.jsonl"):
            for index in range(len(conversation["turns"])):
                for expert in shown:
                    shown[expert] += shows_pattern(tasks, conversation, index, expert)
    assert min(shown.values()) > 500


@pytest.mark.parametrize("activated", [False, True])
def test_training_an_expert_moves_every_adapter_tensor_and_no_base_tensor(
    tiny_model: Path, few: Path, tmp_path: Path, monkeypatch: Any, activated: bool
):
    import empathy_agent.training.tuning as tuning

    seen: dict[str, Any] = {}
    tune = tuning.tune

    def watch(model: Any, *arguments: Any) -> Any:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        result = tune(model, *arguments)
        seen["moved"] = {name: not parameter.equal(before[name]) for name, parameter in model.named_parameters()}
        return result

    monkeypatch.setattr(tuning, "tune", watch)
    results = train_experts(
        base=str(tiny_model),
        conversations=few,
        out=tmp_path,
        tasks=load_tasks(),
        settings={**TINY, "activated": activated},
        experts=["compassionate"],
    )
    adapters = {name: moved for name, moved in seen["moved"].items() if "lora_" in name}
    assert adapters
    assert all(adapters.values())
    assert not any(moved for name, moved in seen["moved"].items() if "lora_" not in name)
    assert results["compassionate"]["dev_loss_after"] < results["compassionate"]["dev_loss_before"]
    card = json.loads((tmp_path / "compassionate" / "expert.json").read_text(encoding="utf-8"))
    assert card["base_fingerprint"] == fingerprint_base(load_base(str(tiny_model))[0])
    served = load_model(str(tiny_model), tmp_path)
    assert served.adapters == ["compassionate"]
    assert served.rows is not None
    prompt = [1, 4, 7, 8, 5]  # <|begin|> <|user|> … <|assistant|>
    assert served.rows.find_start("compassionate", prompt) == (4 if activated else 0)


def test_what_invokes_an_activated_adapter_is_what_opens_every_reply(tiny_model: Path):
    _, tokenizer = load_base(str(tiny_model))
    assert tokenizer.convert_ids_to_tokens(find_invocation(tokenizer)) == ["<|assistant|>"]
    thinking = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    tokenizer.chat_template = thinking + "{% if add_generation_prompt %}<|assistant|><thought></thought>{% endif %}"
    assert tokenizer.convert_ids_to_tokens(find_invocation(tokenizer)) == ["<|assistant|>"]
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ModelError, match="opens replies with nothing: train a plain adapter"):
        find_invocation(tokenizer)


def test_a_sequence_of_an_activated_adapter_ends_with_the_one_reply_it_teaches(tiny_model: Path):
    _, tokenizer = load_base(str(tiny_model))
    turns = [{"role": r, "content": f"{r} {n}"} for n in range(5) for r in ("user", "assistant")]
    examples = list(
        build_examples(
            tokenizer,
            [{"turns": turns}],
            lambda conversation, index: index in (1, 9),
            None,
            described=0,
            longest=500,
            one_reply=True,
        )
    )
    first, last = (tokenizer.decode(example["input_ids"]) for example in examples)
    assert first == "<|begin|><|user|>user 0<|end|><|assistant|>assistant 0<|end|>"
    assert last.startswith("<|begin|><|user|>user 2<|end|>")
    assert last.endswith("<|assistant|>assistant 4<|end|>")
    for example, said in zip(examples, ("assistant 0<|end|>", "assistant 4<|end|>"), strict=True):
        assert tokenizer.decode([token for token in example["labels"] if token != IGNORED]) == said


def test_four_bits_need_bitsandbytes_and_say_so(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'empathy-agent\[four-bit\]'"):
        load_base(str(tiny_model), four_bit=True)


def test_preferences_move_the_adapter_but_not_its_reference_and_are_noted_in_the_card(
    tiny_model: Path, few: Path, engine: EmpathyEngine, tmp_path: Path
):
    experts, preferred = tmp_path / "experts", tmp_path / "preferred"
    common: dict[str, Any] = {
        "base": str(tiny_model),
        "conversations": few,
        "tasks": load_tasks(),
        "experts": ["factual"],
    }
    train_experts(out=experts, settings=TINY, **common)
    results = train_preference(
        adapters=experts,
        out=preferred,
        settings={**TINY, "beta": 0.1, "train_pairs": 6, "test_pairs": 2, "learning_rate": 0.02},
        encoder=engine.encoder,
        **common,
    )
    assert results["factual"]["margin"] != 0
    before, after = (load_file(folder / "factual" / "adapter_model.safetensors") for folder in (experts, preferred))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    card = json.loads((preferred / "factual" / "expert.json").read_text(encoding="utf-8"))
    assert card["preference"]["pairs"] == 6
    assert card["base_fingerprint"] == fingerprint_base(load_base(str(tiny_model))[0])
    assert load_model(str(tiny_model), preferred).adapters == ["factual"]


def test_the_simulated_user_learns_user_turns_from_the_other_side(tiny_model: Path, few: Path, tmp_path: Path):
    _, tokenizer = load_base(str(tiny_model))
    conversation = json.loads((few / "therapy.jsonl").read_text(encoding="utf-8").splitlines()[0])
    example = encode_user(tokenizer, conversation, 5000)
    assert example is not None
    learned = tokenizer.decode([token for token in example["labels"] if token != IGNORED])
    said = [turn["content"] for turn in conversation["turns"] if turn["role"] == "user"]
    assert learned == "".join(f"{text}<|end|>" for text in said)
    results = train_user(base=str(tiny_model), conversations=few, out=tmp_path, settings=TINY)
    assert results["dev_loss_after"] < results["dev_loss_before"]
    assert load_model(str(tiny_model), tmp_path).adapters == ["user"]


def test_the_base_trains_resumes_and_loads_in_the_hub_s_format(few: Path, tmp_path: Path):
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "vocab_size": 400,
        "sequence_length": 32,
        "batch_size": 4,
        "matrix_lr": 0.02,
        "other_lr": 0.002,
        "weight_decay": 0.0,
        "warmup_steps": 5,
        "decay_share": 0.4,
        "dev_share": 0.2,
        "written": 2,
        "weights": {"movie_recommendation": 1.5},
    }
    source = CONVERSATIONS / "movie_recommendation.jsonl"
    first = train_base(data=source, conversations=few, out=tmp_path, minutes=0.03, settings=settings, compile=False)
    again = train_base(data=source, conversations=None, out=tmp_path, minutes=0.06, settings=settings, compile=False)
    assert again["step"] > first["step"] > 0
    assert again["dev_loss"] < 6.0  # log(400) = 5.99 is a model that knows nothing
    more = train_base(
        data=source,
        conversations=None,
        out=tmp_path / "more",
        minutes=0.01,
        settings=settings,
        start=tmp_path,
        compile=False,
    )
    assert more["train_loss"] < first["train_loss"]
    model, tokenizer = load_base(str(tmp_path))
    assert model.config.vocab_size == len(tokenizer) == 400


def test_broken_training_files_name_their_line(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"turns": []}\n{"turns"\n', encoding="utf-8")
    with pytest.raises(InputError, match="bad.jsonl, line 2"):
        list(read_conversations(tmp_path))
    with pytest.raises(InputError, match="no conversations at"):
        list(read_conversations(tmp_path / "nothing"))
