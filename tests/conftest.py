"""Fixtures: tiny random models in the hub's format, a server of them, a PostgreSQL server, and the shipped engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

import pytest

from empathy_agent import EmpathyEngine

TEXTS = [
    "Could you suggest a funny film for tonight? The Nice Guys runs two hours.",
    "My parcel is late again. It was our mistake, and it arrives on Thursday.",
    "I failed the exam and cannot sleep. What part of it worries you most?",
]


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["EMPATHY_AGENT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["EMPATHY_AGENT_DATA"] = str(tmp_path_factory.mktemp("data"))


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Saves a random two-layer Llama with its own tokenizer in the hub's format."""
    import torch

    from empathy_agent.training.base import build_base, train_tokenizer

    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "vocab_size": 400,
    }
    tokenizer = train_tokenizer(TEXTS, settings["vocab_size"])
    tokenizer.save_pretrained(folder)
    build_base(settings, tokenizer).save_pretrained(folder)
    return folder


def save_tiny_adapters(
    base: Path, folder: Path, names: tuple[str, ...] = ("factual", "compassionate"), **changes: Any
) -> Path:
    """Saves random LoRA adapters for a tiny base, strong enough to change what it writes."""
    import torch
    from peft import LoraConfig, get_peft_model

    from empathy_agent.models import load_base

    for number, name in enumerate(names):
        torch.manual_seed(100 + number)
        modules = ["q_proj", "v_proj", "down_proj"]
        config = LoraConfig(r=4, lora_alpha=16, target_modules=modules, task_type="CAUSAL_LM", **changes)
        model = get_peft_model(load_base(str(base))[0].float(), config)
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.data.normal_(0, 0.3)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapters(tiny_model, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def engine() -> EmpathyEngine:
    """The embedded default, as it ships."""
    return EmpathyEngine()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    from tests.postgres_server import run_postgres

    with run_postgres() as address:
        yield address


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The address of a database whose public schema is empty."""
    psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return postgres_server


@pytest.fixture(scope="session")
def expert_server(tiny_model: Path, tiny_adapters: Path) -> Iterator[str]:
    """The address of an OpenAI-compatible server of the tiny base and its adapters."""
    from tests.openai_server import start_server, stop_server

    process, url = start_server(tiny_model, tiny_adapters)
    yield url
    stop_server(process)


@pytest.fixture
def fail(expert_server: str) -> Iterator[Callable[..., None]]:
    """Makes that server fail, as in `fail("500", 2, model="served-factual")`; what was asked before is forgotten."""
    from tests.openai_server import set_fault

    set_fault(expert_server)
    yield lambda *fault, **more: set_fault(expert_server, *fault, **more)
    set_fault(expert_server)
