from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from empathy_agent.decoding import Decoding
from empathy_agent.errors import InputError, OverloadedError, ReplyError
from empathy_agent.models import load_base, load_model
from empathy_agent.template import encode_prompt
from empathy_agent.turns import Turn
from empathy_agent.worker import Worker

GREEDY = Decoding(temperature=0, repetition_penalty=1, max_new_tokens=12)
PROMPTS = ["Hello", "My parcel is late again and nobody answers", "I failed", "a " * 40, "film?"]


@pytest.fixture(scope="module")
def worker(tiny_model: Path, tiny_adapters: Path):
    worker = Worker(load_model(str(tiny_model), tiny_adapters))
    yield worker
    worker.close()


def ask(text: str) -> list[Turn]:
    return [Turn(role="user", content=text)]


def test_mixed_batch_writes_what_peft_writes_one_at_a_time(worker: Worker, tiny_model: Path, tiny_adapters: Path):
    from peft import PeftModel

    requests = [(text, adapter) for text in PROMPTS for adapter in (None, "factual", "compassionate")]
    replies = [worker.submit(ask(text), adapter, GREEDY) for text, adapter in requests]
    together = ["".join(reply) for reply in replies]

    base, tokenizer = load_base(str(tiny_model))
    peft = PeftModel.from_pretrained(base, tiny_adapters / "factual", adapter_name="factual")
    peft.load_adapter(tiny_adapters / "compassionate", adapter_name="compassionate")
    alone = []
    for text, adapter in requests:
        ids = torch.tensor([encode_prompt(tokenizer, ask(text), 500)])
        control = [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
        arguments = {
            "max_new_tokens": 12,
            "do_sample": False,
            "attention_mask": torch.ones_like(ids),
            "suppress_tokens": control,
        }
        if adapter:
            peft.set_adapter(adapter)
            written = peft.generate(input_ids=ids, **arguments)
        else:
            with peft.disable_adapter():
                written = peft.generate(input_ids=ids, **arguments)
        alone.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).rstrip("\ufffd"))
    assert together == alone
    assert len(set(together)) > len(PROMPTS), "the adapters must change what is written"


def test_requests_from_many_threads_answer_as_one_by_one(worker: Worker):
    requests = [(text, adapter) for text in PROMPTS for adapter in (None, "factual", "compassionate")] * 3
    expected = {pair: "".join(worker.submit(ask(pair[0]), pair[1], GREEDY)) for pair in set(requests)}
    wrong: list[tuple[str, str | None]] = []

    def work(pair: tuple[str, str | None]) -> None:
        if "".join(worker.submit(ask(pair[0]), pair[1], GREEDY)) != expected[pair]:
            wrong.append(pair)

    threads = [threading.Thread(target=work, args=(pair,)) for pair in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong


def test_sampling_is_reproducible_by_seed(worker: Worker):
    hot = {"temperature": 1.5, "top_p": 1.0, "max_new_tokens": 20}
    texts = ["".join(worker.submit(ask("Hello"), "factual", Decoding(seed=seed, **hot))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_usage_counts_tokens_and_reason_says_why_it_ended(worker: Worker):
    reply = worker.submit(ask("Hello"), None, Decoding(temperature=0, repetition_penalty=1, max_new_tokens=3))
    "".join(reply)
    assert 1 <= reply.usage["output_tokens"] <= 3
    assert reply.usage["total_tokens"] == len(reply.prompt) + reply.usage["output_tokens"]
    assert reply.finish_reason in ("length", "stop")


def test_a_cancelled_reply_ends_and_the_others_go_on(worker: Worker):
    long = Decoding(temperature=1.0, repetition_penalty=1, max_new_tokens=400)
    cancelled, kept = (worker.submit(ask("Hello"), "factual", long) for _ in range(2))
    cancelled.cancel()
    "".join(cancelled)
    "".join(kept)
    assert cancelled.usage["output_tokens"] < 20 < kept.usage["output_tokens"]
    assert kept.finish_reason in ("length", "stop")


def test_a_stop_string_ends_the_reply_and_is_not_sent(worker: Worker):
    whole = "".join(worker.submit(ask("Hello"), None, GREEDY))
    assert len(whole) > 4
    stop = whole[3:5]
    text = "".join(
        worker.submit(ask("Hello"), None, Decoding(0, repetition_penalty=1, max_new_tokens=12, stop=(stop,)))
    )
    assert text == whole[: whole.index(stop)]


def test_an_unknown_adapter_is_refused_with_the_known_ones(worker: Worker):
    with pytest.raises(InputError, match="no adapter 'gushing': loaded are compassionate, factual"):
        worker.submit(ask("Hello"), "gushing", GREEDY)


def test_a_failing_step_tells_the_caller_and_the_worker_lives_on(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(worker._batch, "join", fail)
        with pytest.raises(ReplyError, match="no room"):
            "".join(worker.submit(ask("Hello"), None, GREEDY))
    assert "".join(worker.submit(ask("Hello"), None, GREEDY))


def test_a_full_queue_says_so_and_a_closed_worker_too(tiny_model: Path):
    worker = Worker(load_model(str(tiny_model)), max_rows=1, max_queued=1)
    long = Decoding(temperature=1.0, repetition_penalty=1, max_new_tokens=450)

    def flood() -> None:
        for _ in range(20):
            worker.submit(ask("Hello"), None, long)

    with pytest.raises(OverloadedError, match="1 replies are waiting"):
        flood()
    worker.close()
    worker.close()
    with pytest.raises(ReplyError, match="closed"):
        worker.submit(ask("Hello"), None, GREEDY)


def test_a_long_conversation_loses_its_oldest_turns_only(tiny_model: Path):
    _, tokenizer = load_base(str(tiny_model))
    turns = [Turn(role="system", content="be brief")]
    for number in range(40):
        turns += [Turn(role="user", content=f"question {number}"), Turn(role="assistant", content=f"answer {number}")]
    turns.append(Turn(role="user", content="the last one"))
    ids = encode_prompt(tokenizer, turns, 200)
    text = tokenizer.decode(ids)
    assert len(ids) <= 200
    assert text.startswith("<|begin|><|system|>be brief<|end|>")
    assert text.endswith("the last one<|end|><|assistant|>")
    assert "question 0" not in text
    assert "answer 39" in text
