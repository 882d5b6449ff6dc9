from __future__ import annotations

import os
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from empathy_agent import EmpathyEngine, InputError, Settings, build_graph
from empathy_agent.exemplar_store import EncoderEmbeddings, StoredExemplars, add_exemplars
from empathy_agent.turns import Turn

GRIEF = [Turn(role="user", content="My dad died last week and I cannot stop crying, every morning is the same")]
SERVER = os.environ.get("EMPATHY_AGENT_TEST_DATABASE", "")


@pytest.fixture(scope="module")
def store(engine: EmpathyEngine) -> VectorStore:
    store = InMemoryVectorStore(EncoderEmbeddings(engine.encoder))
    assert add_exemplars(store) == len(engine.exemplars.exemplars)  # type: ignore[union-attr]
    return store


def test_a_store_recalls_what_the_index_recalls(engine: EmpathyEngine, store: VectorStore):
    for target in (0.1, 0.9):
        indexed, stored = (
            exemplars.recall(engine.encoder, GRIEF, "therapy", target, 3)
            for exemplars in (engine.exemplars, StoredExemplars(store))
        )
        assert [e["id"] for e in stored] == [e["id"] for e in indexed]
        assert [e["score"] for e in stored] == pytest.approx([e["score"] for e in indexed], abs=0.02)
        assert set(stored[0]) == set(indexed[0])


def test_a_message_of_a_few_words_is_searched_for_behind_the_one_before(engine: EmpathyEngine, store: VectorStore):
    reply = Turn(role="assistant", content="What was he like?")
    short = Turn(role="user", content="so kind")
    (found,) = StoredExemplars(store).recall(engine.encoder, [*GRIEF, reply, short], "therapy", 0.9, 1)
    (alone,) = StoredExemplars(store).recall(engine.encoder, [short], "therapy", 0.9, 1)
    assert found["id"] != alone["id"]


def test_the_graph_recalls_from_a_store(store: VectorStore):
    writer = GenericFakeChatModel(messages=iter([AIMessage("I am sorry that he is gone.")]))
    engine = EmpathyEngine(exemplars=store, chat_model=writer)
    state = build_graph(engine=engine).compile().invoke({"messages": GRIEF}, context=Settings(max_revisions=0))
    assert len(state["exemplars"]) == 2
    assert all(isinstance(e["score"], float) and e["reply"] for e in state["exemplars"])


class Distances(InMemoryVectorStore):
    """Returns distances, as most stores do, and says how to turn them into relevance."""

    def similarity_search_with_score(self, query: str, k: int = 4, **more: Any) -> list[tuple[Document, float]]:
        return [(d, 1 - score) for d, score in super().similarity_search_with_score(query, k, **more)]

    def _select_relevance_score_fn(self) -> Any:
        return self._cosine_relevance_score_fn


def test_distances_are_turned_into_similarities(engine: EmpathyEngine, store: VectorStore):
    distances = Distances(EncoderEmbeddings(engine.encoder))
    distances.store = store.store  # type: ignore[attr-defined]
    near, far = (StoredExemplars(s).recall(engine.encoder, GRIEF, "therapy", 0.9, 3) for s in (store, distances))
    assert [e["id"] for e in near] == [e["id"] for e in far]
    assert [e["score"] for e in near] == pytest.approx([e["score"] for e in far], abs=1e-4)


def test_a_document_without_its_fields_is_named(engine: EmpathyEngine):
    store = InMemoryVectorStore(EncoderEmbeddings(engine.encoder))
    store.add_documents([Document("I feel low", id="mine-1", metadata={"task": "therapy", "level": 0.9})])
    with pytest.raises(InputError, match="exemplar 'mine-1' .*'pattern'.*add_exemplars"):
        StoredExemplars(store).recall(engine.encoder, GRIEF, "therapy", 0.9, 1)


@pytest.mark.skipif(not SERVER, reason="no PostgreSQL: set EMPATHY_AGENT_TEST_DATABASE")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pgvector_recalls_what_the_index_recalls(engine: EmpathyEngine):
    postgres = pytest.importorskip("langchain_postgres", reason="langchain-postgres is not installed")
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(SERVER, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    if not known:
        pytest.skip("this PostgreSQL has no pgvector: install postgresql-15-pgvector")
    url = SERVER.replace("postgresql://", "postgresql+psycopg://", 1)
    store = postgres.PGVector(EncoderEmbeddings(engine.encoder), connection=url, pre_delete_collection=True)
    add_exemplars(store)
    indexed, stored = (
        exemplars.recall(engine.encoder, GRIEF, "therapy", 0.9, 3)
        for exemplars in (engine.exemplars, StoredExemplars(store))
    )
    assert [e["id"] for e in stored] == [e["id"] for e in indexed]
