"""Train a base model of our own from scratch: a GPT-2-like decoder or an mBART-like encoder-decoder, with its tokenizer.

    python experiments/own_base_models/train_base.py DATA OUT --architecture decoder --steps 800

DATA holds the data sets (e2e/, multi30k_en_de/, webnlg/, ... with train.jsonl and validation.jsonl). OUT becomes a model
directory that `unipet train model=auto model.path=OUT` reads, and holds training.json: sizes, tokens, seconds, losses.
Decoder: the loss of every token of "source newline target". Encoder-decoder: the loss of the target given the source;
plain text is denoised (a third of its tokens in spans, each span one <mask>), as mBART does.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from corpus import STREAMS, Pair, batches, encode, held_out, texts, training_streams

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 4
BEGIN, PAD, END, _, MASK = range(5)
VOCABULARY = 3072
POSITIONS = 512
IGNORED = -100


def make_tokenizer(data: Path, architecture: str) -> Any:
    """Byte-level BPE over the training text. The encoder-decoder's puts <s> and </s> around a text, the decoder's nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(data), trainer)
    if architecture == "encoder_decoder":
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(architecture: str) -> Any:
    import transformers

    ends = {"bos_token_id": BEGIN, "pad_token_id": PAD, "eos_token_id": END}
    if architecture == "decoder":
        small = {"n_embd": 192, "n_layer": 4, "n_head": 4, "n_positions": POSITIONS, "vocab_size": VOCABULARY}
        free = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**small, **free, **ends))
    sides = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 4))
    }
    widths = {"d_model": 192, "encoder_ffn_dim": 768, "decoder_ffn_dim": 768, "max_position_embeddings": POSITIONS}
    free = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    # The target's last token, </s>, starts the decoder, as in mBART (there it is a language code).
    starts = {"decoder_start_token_id": END, "forced_eos_token_id": END, "vocab_size": VOCABULARY}
    return transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(**sides, **widths, **free, **starts, **ends)
    )


def noised(ids: list[int], draw: random.Random) -> list[int]:
    """About a third of the tokens taken out in spans of one to five, each span replaced by one <mask>."""
    made, i = [], 0
    while i < len(ids):
        if draw.random() < 0.15:
            made.append(MASK)
            i += draw.randint(1, 5)
        else:
            made.append(ids[i])
            i += 1
    return made


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def inputs(pairs: list[Pair], architecture: str, newline: list[int], draw: random.Random) -> dict[str, torch.Tensor]:
    if architecture == "decoder":
        rows = [[*source, *newline, *target, END] if source else [*target, END] for source, target in pairs]
        ids = padded(rows, PAD)
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": padded(rows, IGNORED)}
    sources = [[BEGIN, *(source or noised(target, draw)), END] for source, target in pairs]
    ids = padded(sources, PAD)
    labels = padded([[BEGIN, *target, END] for _, target in pairs], IGNORED)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


@torch.no_grad()
def losses(model: Any, examples: dict[str, list[Pair]], architecture: str, newline: list[int]) -> dict[str, float]:
    """Mean loss per token of each held-out stream, in nats."""
    model.eval()
    found = {}
    for name, pairs in examples.items():
        total = count = 0.0
        pairs = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
        for i in range(0, len(pairs), 50):
            batch = inputs(pairs[i : i + 50], architecture, newline, random.Random(0))
            labels = batch["labels"][:, 1:] if architecture == "decoder" else batch["labels"]
            n = int((labels != IGNORED).sum())
            total, count = total + float(model(**batch).loss) * n, count + n
        found[name] = round(total / count, 4)
    model.train()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--architecture", choices=["decoder", "encoder_decoder"], required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-tokens", type=int, default=768)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    tokenizer, model = make_tokenizer(given.data, given.architecture), make_model(given.architecture)
    newline = encode(["\n"], tokenizer)[0]
    streams, unseen = training_streams(given.data, tokenizer), held_out(given.data, tokenizer)
    decayed = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    others = [tensor for tensor in model.parameters() if tensor.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}])
    draw, source = random.Random(given.seed), batches(streams, given.batch_tokens, given.seed)
    started, tokens, curve, recent = time.perf_counter(), 0, [], []
    for step in range(1, given.steps + 1):
        rate = given.lr * min(step / 100, 0.5 + 0.5 * math.cos(math.pi * step / given.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = inputs(next(source), given.architecture, newline, draw)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch["attention_mask"].sum())
        if given.architecture == "encoder_decoder":
            tokens += int((batch["labels"] != IGNORED).sum())
        recent.append(loss.item())
        if step % 100 == 0 or step == given.steps:
            curve.append({"step": step, "loss": round(sum(recent) / len(recent), 4)})
            print(step, curve[-1]["loss"], f"{time.perf_counter() - started:.0f} s", tokens, "tokens", flush=True)
            recent = []
    seconds = time.perf_counter() - started
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    after = losses(model.eval(), unseen, given.architecture, newline)
    record = {
        "command": " ".join(["python", *sys.argv[:1], "DATA", "OUT", *sys.argv[3:]]),
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "tokens_seen": tokens,
        "train_s": round(seconds),
        "examples": {name: len(pairs) for name, pairs in streams.items()},
        "shares": {name: share for name, (share, _) in STREAMS.items()},
        "loss": curve,
        "held_out_loss": after,
        "held_out_perplexity": {name: round(math.exp(loss), 2) for name, loss in after.items()},
        "versions": {
            "python": platform.python_version(),
            **{n: version(n) for n in ("torch", "transformers", "tokenizers")},
        },
        "machine": f"{platform.system()} {platform.machine()}, one CPU thread",
        "seed": given.seed,
    }
    (given.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["held_out_perplexity"]))


if __name__ == "__main__":
    main()
