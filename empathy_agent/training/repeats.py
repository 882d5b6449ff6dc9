"""Sequences that repeat themselves, from which a small model learns to take up what stands earlier in its context.

Plain text rewards that so little that a model of some million parameters does not come to it within hours; these let the
heads that do it, induction heads (Olsson et al. 2022, arXiv 2209.11895), form within some hundred steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PIECE = (6, 40)  # tokens of a piece
TIMES = (3, 6)  # how often it stands there


def build_repeats(text: np.ndarray, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in which each piece of 6 to 40 tokens stands three to six times before the next one.

    Half of the pieces are taken from `text` as it runs; in the other half each token is drawn from it by chance, so that only
    a look back can foretell them.

    Args:
        text: Token ids, one-dimensional and longer than a piece.
        count: Rows wanted.
        length: Tokens of a row.
        rng: Draws pieces.

    Returns:
        Array of shape (count, length), of the type of `text`.
    """
    import numpy as np

    rows = np.empty((count, length), dtype=text.dtype)
    for row in rows:
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < length:
            size = int(rng.integers(*PIECE, endpoint=True))
            start = int(rng.integers(len(text) - size))
            piece = text[start : start + size] if rng.random() < 0.5 else text[rng.integers(len(text), size=size)]
            pieces += [piece] * int(rng.integers(*TIMES, endpoint=True))
        row[:] = np.concatenate(pieces)[:length]
    return rows
