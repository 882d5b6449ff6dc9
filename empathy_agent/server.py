"""Experts behind an OpenAI-compatible server that serves a base and its adapters by name, such as vLLM with --lora-modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from empathy_agent.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI


def connect_server(base_url: str, model: str | None) -> tuple[ChatOpenAI, list[str]]:
    """Connects to a server and asks which models it serves.

    Args:
        base_url: Address up to and with `/v1`.
        model: Name under which the server serves the base; None takes the first one it lists.

    Returns:
        A chat model, to be bound to an expert with `bind(model=expert)`, and the names that are served.

    Raises:
        MissingExtraError: langchain-openai is not installed.
        ModelError: The server does not answer, or does not serve `model`.
    """
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise MissingExtraError('--base-url needs langchain-openai: pip install "empathy-agent[server]"') from error
    chat_model = ChatOpenAI(base_url=base_url, model=model or "", api_key="none", max_retries=2, timeout=60)  # type: ignore[arg-type]
    try:
        served = [entry.id for entry in chat_model.root_client.models.list()]
    except Exception as error:
        raise ModelError(
            f"the server at {base_url} does not answer: {error}; start it, or correct --base-url"
        ) from error
    if not served or (model and model not in served):
        raise ModelError(
            f"the server at {base_url} does not serve {model!r}: it serves {', '.join(served) or 'nothing'}"
        )
    return chat_model.model_copy(update={"model_name": model or served[0]}), served
