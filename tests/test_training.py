"""Training on tiny models: what should move moves, what should stay stays, and interrupted runs go on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from empathy_agent import EmpathyEngine
from empathy_agent.errors import InputError, MissingExtraError, ModelError
from empathy_agent.exemplars import build_index
from empathy_agent.models import load_base
from empathy_agent.prompts import write_prompt
from empathy_agent.tasks import load_tasks
from empathy_agent.template import find_invocation
from empathy_agent.training.base import train_base
from empathy_agent.training.corpus import IGNORED, list_conversations, pack_conversations, read_conversations
from empathy_agent.training.examples import SystemWriter, build_examples, encode_example
from empathy_agent.training.experts import shows_pattern
from empathy_agent.training.repeats import build_repeats
from empathy_agent.training.user import encode_user
from empathy_agent.turns import Turn
from tests.tiny_training import CONVERSATIONS, save_few


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_few(tmp_path_factory.mktemp("few"))


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


def test_the_simulated_user_learns_user_turns_from_the_other_side(tiny_model: Path, few: Path):
    _, tokenizer = load_base(str(tiny_model))
    conversation = json.loads((few / "therapy.jsonl").read_text(encoding="utf-8").splitlines()[0])
    example = encode_user(tokenizer, conversation, 5000)
    assert example is not None
    learned = tokenizer.decode([token for token in example["labels"] if token != IGNORED])
    said = [turn["content"] for turn in conversation["turns"] if turn["role"] == "user"]
    assert learned == "".join(f"{text}<|end|>" for text in said)


def test_repeats_can_be_foretold_by_looking_back():
    text = np.arange(9000, dtype=np.uint16)
    rows = build_repeats(text, 6, 300, np.random.default_rng(1))
    assert rows.shape == (6, 300)
    assert rows.dtype == text.dtype
    for row in rows:
        seen = [token in row[:at] for at, token in enumerate(row)]
        assert 0.6 < np.mean(seen) < 0.85  # a piece stands three to six times
        after = {}
        foretold = [after.get(a) == b or after.update({a: b}) for a, b in pairwise(row.tolist())]
        assert sum(kept is True for kept in foretold) > 150
    assert np.array_equal(rows, build_repeats(text, 6, 300, np.random.default_rng(1)))


def test_a_prompt_shows_what_suits_its_reply_or_the_reply_itself_but_no_other_of_its_conversation(
    engine: EmpathyEngine,
):
    index = build_index(engine.encoder)
    plain = next(c for c in list_conversations(CONVERSATIONS) if c["id"] == "plain-therapy-001")
    own = [turn["content"] for turn in plain["turns"] if turn["role"] == "assistant"]
    prompts = {
        kind: [SystemWriter(engine.encoder, index, seed, {kind: 1.0}).write(plain, 0.0, 3) for seed in range(12)]
        for kind in ("none", "fitting", "given", "other")
    }
    assert set(prompts["none"]) == {write_prompt("assistant")}
    assert all(own[1] in prompt for prompt in prompts["given"])
    assert not any(reply in prompt for kind in ("fitting", "other") for prompt in prompts[kind] for reply in own)
    assert not any(own[0] in prompt for prompt in prompts["given"])
    assert {prompt.count("Reply: ") for prompt in prompts["given"]} == {1, 2}
    assert len(set(prompts["fitting"])) == 2
    assert len(set(prompts["other"])) > 6


def test_a_sequence_that_is_too_long_loses_old_turns_before_what_the_prompt_shows(
    tiny_model: Path, engine: EmpathyEngine
):
    _, tokenizer = load_base(str(tiny_model))
    plain = [c for c in list_conversations(CONVERSATIONS) if c["id"] == "plain-therapy-001"]
    writer = SystemWriter(engine.encoder, build_index(engine.encoder), 0, {"given": 1.0})

    def build(longest: int) -> str:
        (example,) = build_examples(
            tokenizer, plain, lambda c, at: at == 3, writer, described=0.0, longest=longest, one_reply=True
        )
        return tokenizer.decode(example["input_ids"])

    whole = build(10_000)
    shorter = build(len(tokenizer(whole, add_special_tokens=False)["input_ids"]) - 5)
    said = [turn["content"] for turn in plain[0]["turns"]]
    assert said[0] in whole
    assert said[0] not in shorter
    assert shorter.startswith("<|begin|><|system|>")
    assert all(text in shorter for text in said[2:4])


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
        "repeats": 0.5,
        "weights": {"movie_recommendation": 1.5},
    }
    source = CONVERSATIONS / "movie_recommendation.jsonl"
    first = train_base(data=source, conversations=few, out=tmp_path, minutes=0.03, settings=settings, compile=False)
    again = train_base(data=source, conversations=None, out=tmp_path, minutes=0.06, settings=settings, compile=False)
    assert again["step"] > first["step"] > 0
    assert again["repeats_loss"] < 6.0
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
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "more"))
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)
    assert [json.loads(line)["step"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()] == [
        first["step"],
        again["step"],
    ]
    model, tokenizer = load_base(str(tmp_path))
    assert model.config.vocab_size == len(tokenizer) == 400


def test_broken_training_files_name_their_line(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"turns": []}\n{"turns"\n', encoding="utf-8")
    with pytest.raises(InputError, match="bad.jsonl, line 2"):
        list(read_conversations(tmp_path))
    with pytest.raises(InputError, match="no conversations at"):
        list(read_conversations(tmp_path / "nothing"))
