"""Exemplars in any LangChain vector store, in place of the index in memory: `EmpathyEngine(exemplars=store)`.

Where every agent of a company recalls from one database, and where people change exemplars while agents run. The index in
`exemplars.py` is faster and exact up to some hundred thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from empathy_agent.errors import InputError
from empathy_agent.exemplars import CONSIDERED, leave_out_said, load_exemplars, measure_fit
from empathy_agent.state import Exemplar
from empathy_agent.turns import LONGEST_MESSAGE, Turn, list_texts

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

    from empathy_agent.encoder import Encoder

SHORT = 6  # words below which a message is searched for behind the one before it


class EncoderEmbeddings(Embeddings):
    """This package's encoder as LangChain embeddings, for stores that are filled and searched without another model."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embeds texts as unit vectors."""
        return self._encoder.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Embeds one text as a unit vector."""
        return self.embed_documents([text])[0]


class StoredExemplars:
    """Exemplars in a vector store: the text of a document is what the user said, the rest is in its metadata.

    Args:
        store: Documents with metadata `task`, `level` in [0, 1], `pattern` and `reply`, as `add_exemplars` writes them. Its
            embeddings are its own.
    """

    def __init__(self, store: VectorStore):
        self._store = store

    def describe(self) -> str:
        """Says where the exemplars are."""
        return f"in a {type(self._store).__name__}"

    def recall(self, encoder: Encoder, turns: Sequence[Turn], task: str, target: float, top_k: int) -> list[Exemplar]:
        """Recalls the `top_k` exemplars that fit the last user turn, the task and the target level best.

        The store finds `CONSIDERED` neighbours, which are then ranked by `measure_fit` like those of the index in memory. Its
        score becomes a similarity through LangChain's relevance function of that store (PGVector and Chroma with cosine: 1 -
        distance; FAISS: 1 - distance / √2), and is taken as it is where the store has none, as in InMemoryVectorStore, which
        returns the cosine. `encoder` is not used.

        Raises:
            InputError: A document lacks a field, or its level or length is out of bounds.
        """
        said = list_texts(turns, "user")[-2:]
        query = "\n".join(said) if len(said[-1].split()) < SHORT else said[-1]
        try:
            convert = self._store._select_relevance_score_fn()
        except NotImplementedError:
            convert = float
        found = self._store.similarity_search_with_score(query, k=CONSIDERED)
        recalled = [_read(document, float(convert(score)), task, target) for document, score in found]
        recalled.sort(key=lambda exemplar: exemplar["score"], reverse=True)
        return leave_out_said(recalled, turns)[:top_k]


def _read(document: Document, similarity: float, task: str, target: float) -> Exemplar:
    fields = document.metadata
    try:
        level = float(fields["level"])
        fit = measure_fit(similarity, level, target, fields["task"] == task)
        exemplar = Exemplar(
            id=str(fields.get("id") or document.id or ""),
            score=round(fit, 4),
            pattern=str(fields["pattern"]),
            level=level,
            user=document.page_content,
            reply=str(fields["reply"]),
        )
        if not 0 <= level <= 1 or max(len(exemplar["user"]), len(exemplar["reply"])) > LONGEST_MESSAGE:
            raise ValueError(f"level is {level} of [0, 1], or a text is longer than {LONGEST_MESSAGE:,} characters")
        return exemplar
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"exemplar {document.id!r} in the vector store needs task, level, pattern and reply in its metadata ({error!r}): "
            "write it with add_exemplars"
        ) from error


def add_exemplars(store: VectorStore, folder: Path | None = None) -> int:
    """Writes a folder of exemplars, by default the shipped one, into a vector store, each under its own id.

    Returns:
        How many were written. Writing them again replaces them in stores that know ids.
    """
    exemplars = load_exemplars(folder)
    documents = [
        Document(exemplar["user"], id=exemplar["id"], metadata={k: v for k, v in exemplar.items() if k != "user"})
        for exemplar in exemplars
    ]
    store.add_documents(documents, ids=[exemplar["id"] for exemplar in exemplars])
    return len(documents)
