"""Loads a base and its expert adapters from folders or a hub, and refuses what does not fit with the cure in the message."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.content import find_weights
from empathy_agent.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from empathy_agent.stacking import Rows

CARD = "expert.json"  # beside an adapter: fingerprint of its base, data hash, settings, measured results


@dataclass(frozen=True)
class LocalModel:
    """A base with stacked adapters, ready for one worker."""

    name: str
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    rows: Rows | None
    context: int

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters."""
        return self.rows.names if self.rows else []


def fingerprint_base(model: nn.Module) -> str:
    """Returns a short hash of a base's shapes and of samples of its weights, the same in float32 and bfloat16."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        sample = parameter.detach().reshape(-1)[:64].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def load_base(model: str | None = None, *, four_bit: bool = False) -> tuple[Any, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer by folder or hub id; None is the shipped `empathy-nano`.

    Only safetensors are read and no code of the model's repository is run.

    Args:
        model: Folder or hub id.
        four_bit: Whether its weights are held in 4 bits (NF4, by bitsandbytes), for training adapters on a GPU.

    Raises:
        ModelError: It cannot be loaded, or its tokenizer has no chat template.
        MissingExtraError: bitsandbytes is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, quantized = model or str(find_weights("nano")), _build_four_bit() if four_bit else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        base = AutoModelForCausalLM.from_pretrained(
            name, dtype="auto", use_safetensors=True, trust_remote_code=False, **quantized
        )
    except Exception as error:
        raise ModelError(
            f"cannot load the model {name}: {type(error).__name__}: {error}. Give a folder in the hub's format with "
            "safetensors, or a hub id that this machine can reach or has in its cache"
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {name} has no chat template: choose a chat or instruct model, or add "
            "chat_template.jinja to its folder"
        )
    if four_bit:
        return base.eval(), tokenizer
    if not all(bool(torch.isfinite(p).all()) for p in base.parameters()):
        raise ModelError(f"the weights of {name} hold values that are not finite: the file is damaged, fetch it again")
    # Under `accelerate launch` each process has a GPU of its own.
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    return base.to(device).eval(), tokenizer


def _build_four_bit() -> dict[str, Any]:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if not find_spec("bitsandbytes"):
        raise MissingExtraError("--four-bit needs bitsandbytes: pip install 'empathy-agent[four-bit]'")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": int(os.environ.get("LOCAL_RANK", 0))}}


def find_adapters(folder: Path) -> dict[str, Path]:
    """Lists the adapters of a folder: its subfolders with an `adapter_config.json`, by name.

    Raises:
        ModelError: The folder does not exist or holds none.
    """
    found = {config.parent.name: config.parent for config in sorted(folder.glob("*/adapter_config.json"))}
    if not found:
        raise ModelError(f"no adapters in {folder}: it must hold one folder per expert, each with adapter_config.json")
    return found


def load_model(model: str | None = None, adapters: Path | str | None = None) -> LocalModel:
    """Loads a base with every adapter of a folder.

    Args:
        model: Folder or hub id; None is `empathy-nano` with its shipped experts.
        adapters: Folder with one adapter per expert. None takes the shipped ones for the shipped base, and no adapters
            for any other base (the prompt route then answers).

    Raises:
        ModelError: Something is missing, damaged, or an adapter was trained on another base.
    """
    base, tokenizer = load_base(model)
    context = int(getattr(base.config, "max_position_embeddings", 2048))
    name = model or "empathy-nano"
    if adapters is None and model is not None:
        return LocalModel(name, base, tokenizer, None, context)
    from peft import PeftModel

    from empathy_agent.stacking import stack_adapters

    fingerprint = fingerprint_base(base)
    peft_model: PeftModel | None = None
    for expert, path in find_adapters(Path(adapters) if adapters else find_weights("experts")).items():
        check_adapter(path, name, fingerprint)
        try:
            if peft_model is None:
                peft_model = PeftModel.from_pretrained(base, path, adapter_name=expert, use_safetensors=True)
            else:
                peft_model.load_adapter(path, adapter_name=expert, use_safetensors=True)
        except Exception as error:
            raise ModelError(f"cannot load the adapter {path} on {name}: {type(error).__name__}: {error}") from error
    assert peft_model is not None
    stacked, rows = stack_adapters(peft_model)
    return LocalModel(name, stacked.eval(), tokenizer, rows, context)


def check_adapter(path: Path, base: str, fingerprint: str) -> None:
    """Refuses an adapter that cannot be read or was trained on another base.

    Raises:
        ModelError: With the cure.
    """
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"{path} has no adapter_model.safetensors: only safetensors are read, convert or copy it again"
        )
    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        card = json.loads((path / CARD).read_text(encoding="utf-8")) if (path / CARD).is_file() else {}
    except ValueError as error:
        raise ModelError(f"the configuration of the adapter {path} is damaged: {error}") from error
    trained_on = card.get("base_fingerprint")
    other = config.get("base_model_name_or_path") or ""
    fits = trained_on == fingerprint if trained_on else Path(other).name == Path(base).name
    if not fits:
        raise ModelError(
            f"the adapter {path} belongs to another base ({card.get('base') or other or 'unnamed'}), not to {base}: "
            f"train one for it with `empathy-agent train experts --base {base}`"
        )
