"""Stage 1: trains `empathy-nano` from scratch on public conversations, resumable, within a budget of minutes.

Does not teach the patterns: `chat.py` and `experts.py` do.
"""

from __future__ import annotations

import json
import math
import random
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.models import load_base
from empathy_agent.training.corpus import list_conversations, pack_conversations, read_conversations, weigh
from empathy_agent.training.repeats import build_repeats

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE with the chat's control tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_base(settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the untrained Llama-architecture model that `settings` describes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    names = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "max_position_embeddings",
        "vocab_size",
    ]
    return LlamaForCausalLM(
        LlamaConfig(
            **{name: settings[name] for name in names},
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_optimizers(model: torch.nn.Module, matrix_lr: float, other_lr: float, weight_decay: float) -> list[Any]:
    """Muon on the layers' matrices, AdamW on the rest."""
    import torch

    named = dict(model.named_parameters())  # the tied embedding appears once
    matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in named.values() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=weight_decay, momentum=0.95),
        torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(progress: float, step: int, warmup_steps: int, decay_share: float) -> float:
    """Warm-up, plateau, linear fall to zero. `progress` is the share of the time budget that is spent, in [0, 1].

    >>> learning_rate_factor(0.5, 1000, 100, 0.4), learning_rate_factor(0.8, 1000, 100, 0.4)
    (1.0, 0.5)
    """
    return round(min(1.0, (step + 1) / warmup_steps, max(0.0, (1 - progress) / decay_share)), 6)


def next_token_loss(model: LlamaForCausalLM, decoder: Callable[..., Any], ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of every next token in nats, under bfloat16 autocast.

    The model's own loss would copy the logits to float32, which takes a third of a step on a CPU.

    Args:
        model: Whose output matrix scores the tokens.
        decoder: `model.model`, compiled or not.
        ids: Token ids, (batch, length).
    """
    import torch
    from torch.nn.functional import linear_cross_entropy

    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    weight = model.lm_head.weight.to(torch.bfloat16)  # outside of autocast, which would take the loss in float32
    nats = linear_cross_entropy(hidden.flatten(0, 1).to(torch.bfloat16), weight, ids[:, 1:].flatten(), reduction="none")
    return nats.float().mean()  # in bfloat16 the mean would be known to two hundredths only


def measure_loss(model: LlamaForCausalLM, sequences: np.ndarray) -> float:
    """Mean cross-entropy in nats a token over `sequences` (rows of token ids)."""
    import torch

    model.eval()
    with torch.no_grad():
        losses = [
            next_token_loss(model, model.model, batch).item()
            for batch in torch.as_tensor(sequences.astype("int64"), device=model.device).split(8)
        ]
    model.train()
    return sum(losses) / len(losses)


def train_base(
    *,
    data: Path,
    conversations: Path | None,
    out: Path,
    minutes: float,
    settings: dict[str, Any],
    start: Path | None = None,
    seed: int = 0,
    compile: bool = True,
) -> dict[str, float]:
    """Trains the base for `minutes` of computing time and saves it in the hub's format under `out`.

    A checkpoint is written every five minutes to `out/checkpoint`; a second call with the same arguments goes on from it.

    Args:
        data: Folder of public conversations.
        conversations: Folder of the written conversations, whose train split is read `settings["written"]` times.
        out: Folder of the finished model, its tokenizer and `losses.jsonl`.
        minutes: Budget of training time; the learning rate falls to zero at its end.
        settings: The `[base]` table of `settings.toml`.
        start: Folder of an earlier base of the same shape, whose weights and tokenizer training goes on from.
        seed: Seed of the weights and of the order of conversations.
        compile: Whether to compile the training step (a third faster after half a minute).

    Returns:
        The last entry of `losses.jsonl`: step, tokens, training loss, loss on conversations kept out and on sequences of
        them that repeat themselves (nats a token).
    """
    import numpy as np
    import torch
    from transformers import AutoTokenizer

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    if not (checkpoint / "train.npy").exists():
        # By id, not by chance: a run that goes on from another keeps out the same conversations.
        kept_out: list[dict[str, Any]] = []
        public: list[dict[str, Any]] = []
        for conversation in weigh(read_conversations(data), lambda c: settings["weights"].get(c["source"], 1.0), rng):
            share = zlib.crc32(str(conversation.get("id")).encode()) / 2**32
            (kept_out if share < settings["dev_share"] else public).append(conversation)
        random.Random(0).shuffle(kept_out)
        rng.shuffle(public)
        written = [c for c in list_conversations(conversations) if c["split"] == "train"] if conversations else []
        train_split = public + written * settings["written"]
        rng.shuffle(train_split)
        if start:
            tokenizer = AutoTokenizer.from_pretrained(start)
        else:
            texts = [turn["content"] for c in train_split[: len(train_split) // 2] for turn in c["turns"]]
            tokenizer = train_tokenizer(texts, settings["vocab_size"])
        tokenizer.save_pretrained(out)
        np.save(checkpoint / "dev.npy", pack_conversations(tokenizer, kept_out))
        np.save(checkpoint / "train.npy", pack_conversations(tokenizer, train_split))
    tokenizer = AutoTokenizer.from_pretrained(out)
    length, batch_size = settings["sequence_length"], settings["batch_size"]
    dev, train = (
        (lambda ids: ids[: len(ids) // length * length].reshape(-1, length))(np.load(checkpoint / f"{name}.npy"))
        for name in ("dev", "train")
    )
    dev = dev[:64]
    repeats = build_repeats(dev.reshape(-1), 16, length, np.random.default_rng(seed))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_base(str(start))[0].float() if start else build_base(settings, tokenizer)
    model.config.max_position_embeddings = settings["max_position_embeddings"]
    model.to(device).train()
    if device == "cpu":
        model.set_attn_implementation("eager")  # at 512 tokens a quarter faster than the fused kernel's backward pass
    optimizers = build_optimizers(model, settings["matrix_lr"], settings["other_lr"], settings["weight_decay"])
    step, spent = 0, 0.0
    if (checkpoint / "state.pt").exists():
        saved = torch.load(checkpoint / "state.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, spent = saved["step"], saved["spent"]
    print(
        f"base: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters on {device}, "
        f"{train.size / 1e6:.1f} million tokens a pass, {minutes:g} minutes, from step {step}",
        flush=True,
    )
    decoder = torch.compile(model.model) if compile else model.model
    lrs = [settings["matrix_lr"], settings["other_lr"]]
    order = np.random.default_rng(seed).permutation(len(train))
    recent: list[float] = []
    entry: dict[str, float] = {}
    budget, saved_at = minutes * 60, spent
    while spent < budget:
        started = time.monotonic()
        rows = [order[(step * batch_size + i) % len(order)] for i in range(batch_size)]
        batch = train[rows]
        if repeated := round(batch_size * settings["repeats"]):
            batch[:repeated] = build_repeats(train.reshape(-1), repeated, length, np.random.default_rng([seed, step]))
        ids = torch.as_tensor(batch.astype("int64"), device=device)
        loss = next_token_loss(model, decoder, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = learning_rate_factor(spent / budget, step, settings["warmup_steps"], settings["decay_share"])
        for optimizer, lr in zip(optimizers, lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()
        recent = [*recent[-49:], loss.item()]
        if not math.isfinite(recent[-1]):
            raise FloatingPointError(f"loss {recent[-1]} at step {step}: lower matrix_lr in training/settings.toml")
        step += 1
        spent += time.monotonic() - started
        if spent - saved_at > 300 or spent >= budget:
            saved_at = spent
            entry = {
                "step": step,
                "tokens": step * batch_size * length,
                "minutes": round(spent / 60, 1),
                "train_loss": round(sum(recent) / len(recent), 4),
                "dev_loss": round(measure_loss(model, dev), 4),
                "repeats_loss": round(measure_loss(model, repeats), 4),
            }
            with (out / "losses.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
            torch.save({**state, "step": step, "spent": spent}, checkpoint / "state.pt.new")
            (checkpoint / "state.pt.new").replace(checkpoint / "state.pt")
            model.save_pretrained(out)
        elif step % 20 == 0:
            print(
                f"step {step} loss {sum(recent) / len(recent):.3f} {step * batch_size * length / spent:.0f} tokens/s",
                flush=True,
            )
    model.to(torch.bfloat16).save_pretrained(out)
    return entry
