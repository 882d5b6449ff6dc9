from __future__ import annotations

from dataclasses import replace

import pytest
import torch

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


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1), ("top_p", 0), ("max_new_tokens", 0), ("seed", 1.5), ("seed", True)]
)
def test_settings_out_of_bounds_are_named(field: str, value: object):
    with pytest.raises(InputError, match=f"{field} is"):
        Decoding(**{field: value})
