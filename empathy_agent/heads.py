"""Small trained heads on the encoder's embeddings: ensembles of networks with named groups of outputs.

Does not train (see `training/heads.py`) and does not know what its inputs mean (see the file of each reading).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import ModelError

if TYPE_CHECKING:
    import numpy as np


CHECK = "check"  # folder, in that of the heads, of the judge that checks what another judge has picked


@dataclass(frozen=True)
class Group:
    """One named group of outputs: `softmax` over labels, or one `number` in [0, 1] for each label."""

    name: str
    kind: str
    labels: list[str]
    temperature: float = 1.0


@dataclass(frozen=True)
class Reading:
    """Values of a group, shape (rows, labels): the ensemble's mean, and its standard deviation as uncertainty."""

    labels: list[str]
    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Head:
    """An ensemble of K networks: `w1` (K, inputs, hidden), `b1` (K, hidden), `w2` (K, hidden, outputs), `b2` (K, outputs).

    A head without `w1` is linear: its `w2` is (K, inputs, outputs).
    """

    groups: list[Group]
    encoder: str
    tensors: dict[str, np.ndarray]

    def read(self, features: np.ndarray) -> dict[str, Reading]:
        """Applies the head to features of shape (rows, inputs) and returns a reading of each group."""
        import numpy as np

        if "w1" in self.tensors:
            hidden = np.einsum("ni,kih->knh", features, self.tensors["w1"], optimize=True) + self.tensors["b1"][:, None]
            hidden = np.maximum(hidden, 0)
        else:
            hidden = np.broadcast_to(features, (len(self.tensors["w2"]), *features.shape))
        raw = np.einsum("knh,kho->kno", hidden, self.tensors["w2"], optimize=True) + self.tensors["b2"][:, None]
        readings, start = {}, 0
        for group in self.groups:
            part = raw[..., start : start + len(group.labels)] / group.temperature
            start += len(group.labels)
            if group.kind == "softmax":
                part = np.exp(part - part.max(-1, keepdims=True))
                part /= part.sum(-1, keepdims=True)
            else:
                part = 1 / (1 + np.exp(-part))
            readings[group.name] = Reading(group.labels, part.mean(0), part.std(0))
        return readings


def load_head(path: Path, encoder: str) -> Head:
    """Loads a head from safetensors.

    Raises:
        ModelError: The file is missing or damaged, or the head was trained on another encoder than `encoder`.
    """
    import numpy as np
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            described: dict[str, Any] = json.loads(file.metadata()["head"])
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ModelError(f"cannot read the head {path}: {error}; train it with `empathy-agent train heads`") from error
    if described["encoder"] != encoder:
        raise ModelError(
            f"the head {path.name} was trained on encoder {described['encoder']}, not on {encoder}: "
            "give the encoder that they were trained on, or heads trained on this one (training.heads.train_heads)"
        )
    return Head([Group(**group) for group in described["groups"]], described["encoder"], tensors)


def write_head(head: Head, path: Path) -> None:
    """Writes a head as safetensors in half precision, its groups and encoder in the metadata."""
    import numpy as np
    from safetensors.numpy import save_file

    described = {"groups": [vars(group) for group in head.groups], "encoder": head.encoder}
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in head.tensors.items()}
    save_file(halves, path, metadata={"head": json.dumps(described)})
