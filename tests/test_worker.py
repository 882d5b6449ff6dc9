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

GREEDY = Decoding(temperature=0, no_repeat_ngram_size=0, max_new_tokens=12)  # as `generate` chooses
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


def test_64_conversations_on_four_experts_get_their_own_experts_reply(tiny_model: Path, tmp_path: Path):
    from conftest import save_tiny_adapters

    names = ("factual", "considerate", "encouraging", "compassionate")
    worker = Worker(load_model(str(tiny_model), save_tiny_adapters(tiny_model, tmp_path, names)), max_rows=16)
    alone = {name: "".join(worker.submit(ask(PROMPTS[1]), name, GREEDY)) for name in names}
    assert len(set(alone.values())) == 4
    answers: list[tuple[str, str]] = []

    def work(name: str) -> None:
        answers.append((name, "".join(worker.submit(ask(PROMPTS[1]), name, GREEDY))))

    threads = [threading.Thread(target=work, args=(names[i % 4],)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    worker.close()
    assert len(answers) == 64
    assert all(text == alone[name] for name, text in answers)


def test_activated_adapters_share_the_bases_reading_of_the_history(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from conftest import save_tiny_adapters
    from peft import PeftModel

    monkeypatch.setattr("empathy_agent.prefixes.LEAST", 4)
    _, tokenizer = load_base(str(tiny_model))
    invocation = tokenizer("<|assistant|>", add_special_tokens=False)["input_ids"]
    names = ("factual", "compassionate")
    save_tiny_adapters(tiny_model, tmp_path, names, alora_invocation_tokens=invocation)
    worker = Worker(load_model(str(tiny_model), tmp_path))
    turns, written, known, prompts = ask(PROMPTS[1]), [], [], []
    for name in ("factual", "compassionate", None, "factual"):
        reply = worker.submit(turns, name, GREEDY)
        written.append("".join(reply))
        prompts.append(reply.prompt)
        known.append(reply.usage["input_token_details"]["cache_read"])
        turns = [*turns, Turn(role="assistant", content=written[-1]), *ask("And then?")]
    # Another expert goes on from the history; only its last reply and the new message are read.
    for before, now, count in zip(prompts, prompts[1:], known[1:], strict=False):
        assert count >= len(before) - len(invocation)
        assert count < len(now)
    worker.close()

    peft = PeftModel.from_pretrained(load_base(str(tiny_model))[0], tmp_path / "factual", adapter_name="factual")
    peft.load_adapter(tmp_path / "compassionate", adapter_name="compassionate")
    control = [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
    for name, prompt, text in zip(("factual", "compassionate", None, "factual"), prompts, written, strict=True):
        ids = torch.tensor([prompt])
        arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False}
        alone = peft.generate(input_ids=ids, suppress_tokens=control, adapter_names=[name or "__base__"], **arguments)
        assert text == tokenizer.decode(alone[0, len(prompt) :], skip_special_tokens=True).rstrip("\ufffd")


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


def test_a_reply_that_nobody_waits_for_any_more_leaves_the_queue(tiny_model: Path):
    worker = Worker(load_model(str(tiny_model)), max_rows=1, max_queued=1)
    long = Decoding(temperature=1.0, repetition_penalty=1, max_new_tokens=450)
    first = worker.submit(ask("Hello"), None, long)
    next(iter(first))
    waiting = worker.submit(ask("Hello"), None, long)
    waiting.cancel()
    last = worker.submit(ask("Hello"), None, GREEDY)  # the cancelled one takes no place
    assert "".join(waiting) == ""
    assert (waiting.finish_reason, waiting.usage["output_tokens"]) == ("cancelled", 0)
    first.cancel()
    assert "".join(last)
    worker.close()


def test_candidates_share_one_reading_and_are_what_their_seeds_give_alone(worker: Worker):
    hot = {"temperature": 1.2, "max_new_tokens": 15}
    candidates = worker.submit(ask(PROMPTS[1]), "factual", Decoding(seed=40, **hot), n=3).candidates
    together = ["".join(reply) for reply in candidates]
    alone = ["".join(worker.submit(ask(PROMPTS[1]), "factual", Decoding(seed=s, **hot))) for s in (40, 41, 42)]
    assert together == alone
    assert len(set(together)) == 3
    known = [reply.usage["input_token_details"]["cache_read"] for reply in candidates[1:]]
    assert known == [len(candidates[0].prompt)] * 2


@pytest.mark.parametrize(
    ("n", "heat", "message"), [(0, 1.0, "n is 0"), (33, 1.0, "n is 33"), (2, 0, "2 candidates at temperature 0")]
)
def test_candidates_that_cannot_be_had_are_refused(worker: Worker, n: int, heat: float, message: str):
    with pytest.raises(InputError, match=message):
        worker.submit(ask("Hello"), None, Decoding(temperature=heat), n=n)


def test_a_remembered_beginning_changes_nothing_but_the_time(
    tiny_model: Path, tiny_adapters: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("empathy_agent.prefixes.LEAST", 4)
    local = load_model(str(tiny_model), tiny_adapters)
    texts: dict[bool, list[str]] = {}
    for remembers in (False, True):
        worker = Worker(local, kept_bytes=2**24 if remembers else 0)
        turns, written, known = ask(PROMPTS[1]), [], []
        for adapter in ("factual", "factual", "compassionate", "factual", None):
            reply = worker.submit(turns, adapter, GREEDY)
            written.append("".join(reply))
            known.append(reply.usage["input_token_details"]["cache_read"])
            turns = [*turns, Turn(role="assistant", content=written[-1]), *ask("And then what happened to it all?")]
        worker.close()
        texts[remembers] = written
        # The second turn goes on from the first; the compassionate expert and the base know nothing of it.
        assert [bool(count) for count in known] == ([False, True, False, True, False] if remembers else [False] * 5)
    assert texts[True] == texts[False]


def test_a_long_prompt_does_not_hold_up_a_short_one(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("empathy_agent.worker.READ_BETWEEN", 16)
    monkeypatch.setattr("empathy_agent.worker.READ_ALONE", 16)
    worker = Worker(load_model(str(tiny_model)))
    with worker._changed:  # both are there before the first is read
        long, short = worker.submit(ask("word " * 90), None, GREEDY), worker.submit(ask("Hi"), None, GREEDY)
    next(iter(short))
    assert not long._pieces.qsize(), "the short prompt has its first token while the long one is still read"
    assert "".join(long)
    worker.close()


def test_a_failing_step_tells_the_caller_and_the_worker_lives_on(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(worker._prompts, "feed", fail)
        with pytest.raises(ReplyError, match="no room"):
            "".join(worker.submit(ask("Hello"), None, GREEDY))
    assert "".join(worker.submit(ask("Hello"), None, GREEDY))


def test_a_full_queue_says_so_and_a_closed_worker_too(tiny_model: Path):
    worker = Worker(load_model(str(tiny_model)), max_rows=1, max_queued=1)
    long = Decoding(temperature=1.0, repetition_penalty=1, max_new_tokens=450)

    def flood() -> None:
        for _ in range(20):
            worker.submit(ask("Hello"), None, long)

    with pytest.raises(OverloadedError, match="1 requests are waiting already: try again later, or raise max_queued"):
        flood()
    worker.close()
    worker.close()
    with pytest.raises(ReplyError, match="closed"):
        worker.submit(ask("Hello"), None, GREEDY)


def test_closing_ends_what_is_read_written_and_waiting(tiny_model: Path):
    worker = Worker(load_model(str(tiny_model)), max_rows=1)
    long = Decoding(temperature=1.0, repetition_penalty=1, max_new_tokens=450)
    replies = [worker.submit(ask("Hello"), None, long) for _ in range(3)]
    next(iter(replies[0]))
    worker.close()
    for reply in replies:
        "".join(reply)
    assert [reply.finish_reason for reply in replies] == ["cancelled"] * 3
    assert not worker._thread.is_alive()


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
