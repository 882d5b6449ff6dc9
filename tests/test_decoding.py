from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from empathy_agent.decoding import Decoding, Sampling, TextStream
from empathy_agent.errors import InputError
from empathy_agent.models import load_base

HOT = Decoding(temperature=1.0, top_p=0.9, repetition_penalty=1.0)


def choose(
    decodings: list[Decoding], logits: torch.Tensor, steps: int = 1, banned: tuple[int, ...] = ()
) -> list[list[int]]:
    sampling = Sampling(banned)
    sampling.add(decodings)
    return [sampling.choose(logits) for _ in range(steps)]


def test_a_row_draws_the_same_whatever_stands_beside_it():
    torch.manual_seed(0)
    logits = torch.randn(3, 50)
    rows = [Decoding(seed=seed, temperature=heat) for seed, heat in ((1, 0.7), (2, 0.0), (3, 1.3))]
    together = choose(rows, logits, steps=20)
    for row, decoding in enumerate(rows):
        alone = choose([decoding], logits[row : row + 1], steps=20)
        assert [step[row] for step in together] == [step[0] for step in alone]


def test_draws_follow_the_probabilities_within_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    (drawn,) = choose([replace(HOT, seed=seed) for seed in range(4000)], logits.expand(4000, 4))
    counts = torch.bincount(torch.tensor(drawn), minlength=4) / 4000
    assert counts.tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=0.03)
    assert counts[3] == 0


def test_written_tokens_are_penalized_and_banned_ones_never_chosen():
    logits = torch.tensor([[2.0, 1.5, 1.0, 9.0], [2.0, 1.5, 1.0, 9.0]])
    greedy = Decoding(temperature=0, repetition_penalty=1.6), Decoding(temperature=0, repetition_penalty=1.0)
    assert choose(list(greedy), logits, steps=3, banned=(3,)) == [[0, 0], [1, 0], [0, 0]]


def test_a_run_of_tokens_is_not_written_twice_and_rows_that_leave_change_nothing():
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    greedy = Decoding(temperature=0, repetition_penalty=1.0, no_repeat_ngram_size=2)
    said = [step[0] for step in choose([greedy], logits, steps=6)]
    assert said == [0, 0, 1, 0, 2, 0]
    assert [step[0] for step in choose([replace(greedy, no_repeat_ngram_size=0)], logits, steps=4)] == [0] * 4
    sampling = Sampling(())
    sampling.add([greedy, greedy])
    before = [sampling.choose(logits.expand(2, 3)) for _ in range(3)]
    sampling.keep([1])
    after = [sampling.choose(logits)[0] for _ in range(3)]
    assert [step[1] for step in before] + after == said


def test_rows_that_stay_keep_what_they_wrote_and_their_generator():
    torch.manual_seed(0)
    logits = torch.randn(2, 30)
    decodings = [Decoding(seed=5, repetition_penalty=1.5), Decoding(seed=6, repetition_penalty=1.5)]
    alone = [step[0] for step in choose(decodings[1:], logits[1:], steps=8)]
    sampling = Sampling([])
    sampling.add(decodings)
    written = [sampling.choose(logits)[1] for _ in range(4)]
    sampling.keep([1])
    sampling.add([HOT])
    sampling.choose(logits[:1], first=1)  # a row that joins draws its first token by itself
    assert written + [sampling.choose(logits[[1, 0]])[0] for _ in range(4)] == alone


def test_pieces_of_a_stream_are_the_whole_text():
    _, tokenizer = load_base()
    text = "Ça va? 🌧️ It rained, all day — 祝你好运 and then some."
    stream = TextStream(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) + stream.finish() == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.fixture(scope="module")
def bytewise(tiny_model: Path) -> Any:
    """A tokenizer to which most characters beyond ASCII are several tokens, one a byte."""
    tokenizer = load_base(str(tiny_model))[1]
    assert len(tokenizer("🌧", add_special_tokens=False)["input_ids"]) == 4
    return tokenizer


def stream(tokenizer: Any, ids: list[int], *stop: str) -> tuple[str, bool]:
    """What a stream sends of tokens until it stops, and whether it did."""
    text = TextStream(tokenizer, stop)
    pieces = []
    for token in ids:
        pieces.append(text.add(token))
        if text.stopped:
            break
    return "".join([*pieces, text.finish()]), text.stopped


# Few different characters, of one to four bytes, so that stop strings occur, overlap themselves and almost occur.
FEW = st.text(st.sampled_from("ab é祝🌧"), max_size=12)


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(text=FEW, stop=FEW.filter(bool))
def test_a_stream_ends_before_its_stop_string_whatever_tokens_hold_it(bytewise: Any, text: str, stop: str):
    ids = bytewise(text, add_special_tokens=False)["input_ids"]
    assert bytewise.decode(ids) == text
    assert stream(bytewise, ids, stop) == (text.split(stop)[0], stop in text)


def test_of_several_stop_strings_the_one_that_is_whole_first_ends_the_stream(bytewise: Any):
    ids = bytewise("one 🌧🌧 two 祝你 three", add_special_tokens=False)["input_ids"]
    assert stream(bytewise, ids, "祝你", "🌧 two") == ("one 🌧", True)
    assert stream(bytewise, ids, "你 four", "🌧🌧🌧") == ("one 🌧🌧 two 祝你 three", False)


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(data=st.lists(st.integers(0, 399), max_size=30))
def test_any_tokens_stream_as_they_decode_together_less_an_unfinished_end(bytewise: Any, data: list[int]):
    whole = bytewise.decode(data, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert stream(bytewise, data)[0] == whole.rstrip("\ufffd")


def test_a_stop_string_that_ends_before_an_unfinished_character_is_not_sent(bytewise: Any):
    """A token may hold the end of a stop string and the first byte of a character that never comes."""

    class Pairs:
        def decode(self, ids: list[int], **_: Any) -> str:
            return b"".join([b"go S", b"TO", b"P\xf0"][token] for token in ids).decode(errors="replace")

    assert stream(Pairs(), [0, 1, 2], "STOP") == ("go ", True)
    assert stream(Pairs(), [0, 1], "STOP") == ("go STO", False)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1), ("top_p", 0), ("max_new_tokens", 0), ("seed", 1.5), ("seed", True)]
)
def test_settings_out_of_bounds_are_named(field: str, value: object):
    with pytest.raises(InputError, match=f"{field} is"):
        Decoding(**{field: value})
