"""Made-up inputs for any base model, and its outputs for them: two forms of one model are compared without any data.

Shapes: B rows, T tokens, C choices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS, LENGTH = 4, 12
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "cls_token_id", "sep_token_id")


def made_up_inputs(model: Any) -> dict[str, Tensor]:
    """Arguments of a forward pass: rows of different lengths, padded on the right, ending with the end of a text where the
    model knows one; or images. The same on every call. A model that knows no padding gets rows of one length."""
    stream = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    if getattr(model, "main_input_name", "input_ids") == "pixel_values":
        size = model.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        images = torch.randn(ROWS, int(getattr(model.config, "num_channels", 3)), height, width, generator=stream)
        return {"pixel_values": images.to(device)}
    inputs = _text(model.config, stream)
    if getattr(model.config, "is_encoder_decoder", False):
        inputs |= {f"decoder_{name}": tensor for name, tensor in _text(model.config, stream).items()}
        if "SequenceClassification" in type(model).__name__:  # it makes the decoder's input of the encoder's
            inputs = {name: tensor for name, tensor in inputs.items() if not name.startswith("decoder_")}
    if "MultipleChoice" in type(model).__name__:
        inputs = {name: torch.stack([tensor, tensor.flip(0)], dim=1) for name, tensor in inputs.items()}  # (B, C, T)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def _text(config: Any, stream: torch.Generator) -> dict[str, Tensor]:
    text = config.get_text_config()
    pad, end = text.pad_token_id, text.eos_token_id
    special = {getattr(text, name, None) for name in _SPECIAL} | {0}
    plain = torch.tensor([token for token in range(int(text.vocab_size)) if token not in special])
    length = min(LENGTH, int(getattr(text, "max_position_embeddings", None) or LENGTH) - 2)
    ids_BT = plain[torch.randint(len(plain), (ROWS, length), generator=stream)]
    count_B = torch.full((ROWS,), length) if pad is None else (length - 2 * torch.arange(ROWS)).clamp(min=3)
    mask_BT = torch.arange(length) < count_B[:, None]
    if isinstance(end, int):
        ids_BT[torch.arange(ROWS), count_B - 1] = end
    return {"input_ids": ids_BT.masked_fill(~mask_BT, pad or 0), "attention_mask": mask_BT.long()}


@torch.no_grad()
def outputs_of(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The logits (hidden states of a model without a head) at real tokens, in evaluation mode, as float32 on the CPU. Weights in
    half precision compute under autocast, as they do in a run."""
    training, device = model.training, next(model.parameters()).device
    stored = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    half = next((dtype for dtype in (torch.bfloat16, torch.float16) if dtype in stored), torch.bfloat16)
    mixed = torch.autocast(device.type, half, enabled=len(stored) > 1)
    model.eval()
    try:
        with mixed:
            answer = model(**inputs)
    finally:
        model.train(training)
    scores = answer.logits if getattr(answer, "logits", None) is not None else answer.last_hidden_state
    mask = next((inputs[name] for name in ("decoder_attention_mask", "attention_mask") if name in inputs), None)
    if mask is not None and scores.shape[:2] == mask.shape:
        scores = scores[mask.bool()]
    return [scores.float().cpu()]
