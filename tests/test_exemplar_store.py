from __future__ import annotations

from collections.abc import Iterator
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
    assert len(state["exemplars"]) == 1
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


@pytest.fixture
def pgvector(engine: EmpathyEngine, postgres: str) -> Iterator[VectorStore]:
    """The shipped exemplars in PostgreSQL's own vector store."""
    module = pytest.importorskip("langchain_postgres", reason="langchain-postgres is not installed")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    database = sqlalchemy.create_engine(postgres.replace("postgresql://", "postgresql+psycopg://", 1))
    with database.connect() as connection:
        known = connection.execute(
            sqlalchemy.text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        ).scalar()
    if not known:
        pytest.skip("this PostgreSQL has no extension pgvector: pip install pgserver, which brings one that has")
    store = module.PGVector(EncoderEmbeddings(engine.encoder), connection=database)
    add_exemplars(store)
    yield store
    database.dispose()


def test_pgvector_recalls_what_the_index_recalls(engine: EmpathyEngine, pgvector: VectorStore):
    for text, task, target in (
        (GRIEF[0]["content"], "therapy", 0.9),
        ("the train was cancelled and the hotel keeps my money", "customer_support", 0.45),
        ("a short funny film for tonight please", "movie_recommendation", 0.1),
    ):
        turns = [Turn(role="user", content=text)]
        indexed, stored = (
            exemplars.recall(engine.encoder, turns, task, target, 3)
            for exemplars in (engine.exemplars, StoredExemplars(pgvector))
        )
        assert [e["id"] for e in stored] == [e["id"] for e in indexed]
        assert [e["score"] for e in stored] == pytest.approx([e["score"] for e in indexed], abs=1e-3)


def test_pgvector_finds_by_task_and_replaces_and_deletes_by_id(engine: EmpathyEngine, pgvector: VectorStore):
    count = add_exemplars(pgvector)  # a second time
    text = GRIEF[0]["content"]
    assert len(pgvector.similarity_search(text, k=2 * count)) == count
    found = pgvector.similarity_search(text, k=5, filter={"task": "tutoring"})
    assert [document.metadata["task"] for document in found] == ["tutoring"] * 5
    first, second, third = StoredExemplars(pgvector).recall(engine.encoder, GRIEF, "therapy", 0.9, 3)
    pgvector.delete([first["id"]])
    assert StoredExemplars(pgvector).recall(engine.encoder, GRIEF, "therapy", 0.9, 2) == [second, third]
