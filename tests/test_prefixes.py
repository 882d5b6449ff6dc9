from __future__ import annotations

import torch

from empathy_agent.prefixes import LEAST, Past, Prefixes


def make_past(length: int) -> Past:
    return Past([(torch.arange(length).float().reshape(1, length, 1), torch.zeros(1, length, 1)) for _ in range(2)])


TOKENS = list(range(100, 100 + 2 * LEAST))


def test_the_longest_common_beginning_under_the_same_adapter_is_found():
    prefixes = Prefixes(10**6)
    prefixes.keep("factual", TOKENS, make_past(len(TOKENS)))
    prefixes.keep("factual", [*TOKENS[: LEAST + 5], *[7] * LEAST], make_past(2 * LEAST + 5))
    found = prefixes.find("factual", [*TOKENS[:-3], 1, 2, 3, 4], 1000)
    assert found is not None
    assert found.length == len(TOKENS) - 3
    assert found.layers[0][0][0, -1, 0] == found.length - 1
    assert prefixes.find(None, TOKENS, 1000) is None
    assert prefixes.find("factual", TOKENS[: LEAST - 1], 1000) is None
    assert prefixes.find("factual", TOKENS, LEAST + 1).length == LEAST + 1


def test_a_longer_beginning_replaces_its_own_start_and_a_shorter_one_adds_nothing():
    prefixes = Prefixes(10**6)
    for length in (LEAST, 2 * LEAST, LEAST + 3):
        prefixes.keep(None, TOKENS[:length], make_past(length))
    assert len(prefixes._kept) == 1
    assert prefixes._size == make_past(2 * LEAST).size


def test_memory_is_bounded_and_the_least_recently_used_goes_first():
    past = make_past(LEAST)
    prefixes = Prefixes(2 * past.size)
    first, second, third = ([number] * LEAST for number in (1, 2, 3))
    prefixes.keep(None, first, past)
    prefixes.keep(None, second, past)
    assert prefixes.find(None, first, 1000)
    prefixes.keep(None, third, past)
    assert prefixes._size <= prefixes.limit
    assert [bool(prefixes.find(None, tokens, 1000)) for tokens in (first, second, third)] == [True, False, True]
    prefixes.keep(None, TOKENS, make_past(10**6))
    assert len(prefixes._kept) == 2
