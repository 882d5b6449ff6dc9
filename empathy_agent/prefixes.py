"""Remembers what a model made of the beginnings of conversations, so that the next turn reads only what is new.

Keys and values depend on every token before them and on the adapter that read them, so a beginning is only used again
where both are the same. Memory is bounded in bytes; what was used least recently goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

LEAST = 32  # tokens below which reading again is as quick as remembering


@dataclass(frozen=True)
class Past:
    """Keys and values of one row for every layer, each of shape (heads, length, dimension)."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def length(self) -> int:
        """Tokens read."""
        return self.layers[0][0].shape[1]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for pair in self.layers for tensor in pair)

    def cut(self, length: int) -> Past:
        """The first `length` tokens, as views."""
        return self if length == self.length else Past([(k[:, :length], v[:, :length]) for k, v in self.layers])


class Prefixes:
    """Beginnings that were read, by adapter; only the worker's thread touches it.

    Args:
        limit: Bytes of keys and values to keep; 0 keeps nothing.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._size = 0
        self._kept: OrderedDict[tuple[str | None, bytes], Past] = OrderedDict()

    def find(self, adapter: str | None, tokens: Sequence[int], most: int) -> Past | None:
        """Returns the longest remembered beginning of `tokens[:most]` as `adapter` (None: the base) read it."""
        import numpy as np

        wanted = np.asarray(tokens[:most], dtype=np.int32)
        best, found = LEAST - 1, None
        for key in self._kept:
            if key[0] == adapter and (length := _count_common(wanted, np.frombuffer(key[1], dtype=np.int32))) > best:
                best, found = length, key
        if found is None:
            return None
        self._kept.move_to_end(found)
        return self._kept[found].cut(best)

    def keep(self, adapter: str | None, tokens: Sequence[int], past: Past) -> None:
        """Remembers `past`, which `adapter` made of `tokens`; a remembered beginning of these tokens is replaced."""
        import numpy as np

        if past.length < LEAST or past.size > self.limit:
            return
        new = np.asarray(tokens, dtype=np.int32).tobytes()
        for key in [key for key in self._kept if key[0] == adapter]:
            if key[1].startswith(new):
                self._kept.move_to_end(key)
                return
            if new.startswith(key[1]):
                self._size -= self._kept.pop(key).size
        self._kept[adapter, new] = past
        self._size += past.size
        while self._size > self.limit:
            self._size -= self._kept.popitem(last=False)[1].size


def _count_common(one: np.ndarray, other: np.ndarray) -> int:
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
