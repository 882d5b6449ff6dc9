"""Exemplary turns: loaded from JSONL, indexed with FAISS on first use, retrieved by context and by target level."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.choosing import measure_repetition
from empathy_agent.content import find_content
from empathy_agent.encoder import Encoder
from empathy_agent.errors import InputError
from empathy_agent.state import Exemplar
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import faiss
    import numpy as np

FIELDS = {
    "id": str,
    "task": str,
    "pattern": str,
    "level": float,
    "emotion": str,
    "situation": str,
    "user": str,
    "reply": str,
}
LEVEL_WEIGHT = 0.8  # how much a distance of 1 between an exemplar's level and the target costs against cosine
TASK_BONUS = 0.05  # what an exemplar of the recognized task gains
CONTEXT_WEIGHT = 0.25  # weight of the user turns before the last one in the query
CONSIDERED = 64  # neighbours that are ranked again by level and task
SPARE = 6  # exemplars retrieved beyond those wanted, in place of such as were said already
REMEMBERED = 10  # replies that an exemplar must not repeat
SAID = 0.5  # share of an exemplar's word pairs from which it counts as said
EXACT = 50_000  # exemplars up to which all are compared; a graph finds nearly all neighbours in a fraction of the time
NEGLIGIBLE = 0.02  # below this need, with a target below it too, nothing is retrieved


def load_exemplars(folder: Path | None = None) -> list[dict[str, Any]]:
    """Reads every `*.jsonl` of a folder of exemplars; by default the shipped one, and the replies of the plain conversations.

    Raises:
        InputError: A line misses a field or repeats an id; the message names the file and line.
    """
    exemplars: list[dict[str, Any]] = [] if folder else list_replies(find_content("conversations/plain"))
    folder = folder or find_content("retrieval/exemplars")
    seen: set[str] = set()
    for path in sorted(folder.glob("*.jsonl")):
        for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
            if not raw.strip():
                continue
            try:
                line = raw.decode("utf-8")
                row = json.loads(line)
                exemplar = {name: kind(row[name]) for name, kind in FIELDS.items()}
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: an exemplar needs {', '.join(FIELDS)}: {error!r}") from error
            if exemplar["id"] in seen or not 0 <= exemplar["level"] <= 1:
                raise InputError(f"{path}, line {number}: id {exemplar['id']!r} is repeated or level is outside [0, 1]")
            seen.add(exemplar["id"])
            exemplars.append(exemplar)
    if not exemplars:
        raise InputError(f"no exemplars in {folder}: it must hold files like retrieval/exemplars/therapy.jsonl")
    return exemplars


def list_replies(folder: Path) -> list[dict[str, Any]]:
    """Every reply of the train split of the written conversations of a folder, as an exemplar with the id `conversation/turn`."""
    from empathy_agent.training.corpus import read_conversations

    return [
        {
            "id": f"{conversation['id']}/{at}",
            "task": conversation["task"],
            "pattern": conversation["expert"],
            "level": turn["empathy"]["level"],
            "emotion": conversation["turns"][at - 1]["emotion"],
            "situation": conversation["theme"],
            "user": conversation["turns"][at - 1]["content"],
            "reply": turn["content"],
        }
        for conversation in read_conversations(folder)
        if conversation["split"] == "train"
        for at, turn in enumerate(conversation["turns"])
        if turn["role"] == "assistant" and at
    ]


def measure_fit(similarity: float, level: float, target: float, same_task: bool) -> float:
    """Similarity less 0.8 · |level - target|, plus 0.05 for the same task: 0.7 at 0.1 from the target gives 0.62, or 0.67."""
    return similarity - LEVEL_WEIGHT * abs(level - target) + TASK_BONUS * same_task


class ExemplarIndex:
    """Exemplars with a FAISS index of what their users said; inner product over unit vectors."""

    def __init__(self, exemplars: list[dict[str, Any]], index: faiss.Index):
        self.exemplars = exemplars
        self._index = index

    def describe(self) -> str:
        """Says how many exemplars there are."""
        return f"{len(self.exemplars)} indexed"

    def recall(self, encoder: Encoder, turns: Sequence[Turn], task: str, target: float, top_k: int) -> list[Exemplar]:
        """Recalls the `top_k` exemplars that fit the end of a conversation, the task and the target level best."""
        found = self.retrieve(build_query(encoder, turns), task, target, top_k + SPARE)
        return leave_out_said(found, turns)[:top_k]

    def retrieve(self, query: np.ndarray, task: str, target: float, top_k: int) -> list[Exemplar]:
        """Retrieves the `top_k` exemplars that fit the query vector, the task and the target level best."""
        scores, rows = self._index.search(query[None], min(CONSIDERED, len(self.exemplars)))
        ranked = []
        for score, row in zip(scores[0], rows[0], strict=True):
            exemplar = self.exemplars[row]
            ranked.append((measure_fit(float(score), exemplar["level"], target, exemplar["task"] == task), exemplar))
        ranked.sort(key=lambda pair: pair[0], reverse=True)
        return [
            Exemplar(
                id=exemplar["id"],
                score=round(fit, 4),
                pattern=exemplar["pattern"],
                level=exemplar["level"],
                user=exemplar["user"],
                reply=exemplar["reply"],
            )
            for fit, exemplar in ranked[:top_k]
        ]


def leave_out_said(exemplars: Sequence[Exemplar], turns: Sequence[Turn]) -> list[Exemplar]:
    """Leaves out exemplars of whose reply the last turns hold at least half of the word pairs."""
    said = list_texts(turns, "assistant")[-REMEMBERED:]
    return [exemplar for exemplar in exemplars if measure_repetition(exemplar["reply"], said) < SAID]


def build_index(encoder: Encoder, folder: Path | None = None, cache: Path | None = None) -> ExemplarIndex:
    """Builds the index of a folder of exemplars, or reads it from the user's cache where it was built before.

    The cached file is keyed by the exemplars' content and the encoder, written beside its place and moved there, and built
    again when it cannot be read.
    """
    import faiss

    exemplars = load_exemplars(folder)
    content = json.dumps([encoder.fingerprint, exemplars], ensure_ascii=False, sort_keys=True)
    path = find_cache(cache) / f"exemplars-{hashlib.sha256(content.encode()).hexdigest()[:16]}.faiss"
    if path.is_file():
        try:
            index = faiss.read_index(str(path))
            kind = faiss.IndexFlatIP if len(exemplars) <= EXACT else faiss.IndexHNSWFlat
            same = isinstance(faiss.downcast_index(index), kind) and index.metric_type == faiss.METRIC_INNER_PRODUCT
            if same and (index.ntotal, index.d) == (len(exemplars), encoder.dimension):
                return ExemplarIndex(exemplars, index)
        except RuntimeError:
            pass  # a damaged cache is as good as none
    index = make_index(encoder.encode([exemplar["user"] for exemplar in exemplars]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, suffix=".new")
        os.close(handle)
        faiss.write_index(index, new)
        os.replace(new, path)
    except (OSError, RuntimeError):
        pass  # an index that cannot be kept still serves this process
    return ExemplarIndex(exemplars, index)


def make_index(vectors: np.ndarray) -> faiss.Index:
    """Makes the inner-product index of unit vectors, (count, dimension): exact up to `EXACT`, above it a graph (HNSW)."""
    import faiss

    count, dimension = vectors.shape
    index: Any = faiss.IndexFlatIP(dimension)
    if count > EXACT:
        index = faiss.IndexHNSWFlat(dimension, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 2 * CONSIDERED
    index.add(vectors)
    return index


def find_cache(cache: Path | None = None) -> Path:
    """Returns the user's cache folder, or that of `EMPATHY_AGENT_CACHE`."""
    import platformdirs

    return cache or Path(os.environ.get("EMPATHY_AGENT_CACHE") or platformdirs.user_cache_dir("empathy-agent"))


def build_query(encoder: Encoder, turns: Sequence[Turn]) -> np.ndarray:
    """Unit vector of the last user turn with a quarter of the mean of up to four before it."""
    vectors = encoder.encode(list_texts(turns, "user")[-5:])
    query = vectors[-1] + (CONTEXT_WEIGHT * vectors[:-1].mean(0) if len(vectors) > 1 else 0)
    return query / (query @ query) ** 0.5
