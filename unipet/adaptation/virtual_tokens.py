"""Tokens of an insertion's own in the sequence: the hooks around a stack that make room for them.

On the way in, token ids become embeddings with the tokens among them, before positions are added; masks, positions and
segments grow. On the way out their positions are taken from what the stack returns, so that heads, losses and
generation see the user's tokens only. A KV cache keeps them: later passes only widen the mask and move positions.

Shapes: B batch, T the user's tokens of this pass, S those of the KV cache included, L added tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.added_tokens import among, moved, note, noting, places, visible, without
from unipet.adaptation.position_ids import named, padding_counter, past_of, positions, takes, tokens_of
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import OwnRows
from unipet.calculus.weights import BaseWeight
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Vocabulary(BaseWeight):
    """The token embedding of a stack as a weight that tokens may start from, (V, D)."""

    def weight(self) -> Tensor:
        # BART and Gemma multiply embedded tokens by a scale.
        scale: Tensor | float = getattr(self.module, "embed_scale", 1.0)
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight * scale


def vocabulary_of(module: nn.Module) -> Vocabulary | None:
    """The token embedding of the stack that `module` enters; None where it reads no token ids (images)."""
    if not takes(module, "input_ids"):
        return None
    return Vocabulary(module.get_input_embeddings(), None)  # type: ignore[operator]


class VirtualTokens:
    """One insertion's hooks on the entry module of its stack.

    `read_on` says that a decoder reads this stack's output: there the tokens stay in it, and `Crossing` widens the mask.
    `alone` is true for the first insertion of the stack that adds tokens.
    """

    def __init__(self, insertion: Insertion, module: nn.Module, read_on: bool, alone: bool):
        self.insertion, self.alone = insertion, alone
        composition: Any = insertion.parts.composition
        self.after = int(
            composition.after == "first" or (composition.after == "auto" and not insertion.site.causal and not read_on)
        )
        self.keeps = read_on or composition.keep_outputs
        self.size: int = insertion.parts.function.size  # type: ignore[attr-defined]
        self.counter = padding_counter(module)
        self.limit = position_limit(module)
        self.total = 0  # the length of this pass, added tokens included; 0 where none were added
        self.place_B: Tensor = torch.zeros(1)  # where they are in each row

    def on_entry(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments of the call with the tokens among them."""
        given = named(module, args, kwargs)
        (rows, length), past = tokens_of(given).shape[:2], past_of(given)
        mask_BS = given.get("attention_mask")
        if mask_BS is not None and not (isinstance(mask_BS, Tensor) and mask_BS.dim() == 2):
            shown = tuple(mask_BS.shape) if isinstance(mask_BS, Tensor) else type(mask_BS).__name__
            raise UnipetError(
                f"{self.insertion.name!r} adds tokens to the sequence, which needs a 2-D attention_mask, not {shown}. "
                "generate() makes others for a static cache; use its default cache."
            )
        if self.limit is not None and past + length + self.size * (past == 0) > self.limit:
            raise UnipetError(
                f"{self.insertion.name!r}: {self.size} tokens and {length} of the input do not fit into the "
                f"{self.limit} positions of this base model. Shorten the input, or set a smaller function.size."
            )
        tokens, seen = tokens_of(given), past + length - self.size * (past > 0)
        own_B, place_B = self._own(tokens), places(mask_BS, self.after, rows, tokens.device)
        if own_B is not None:
            if mask_BS is None and past:
                raise needs_mask(self.insertion)
            mask_BS = torch.ones(rows, seen, dtype=torch.long, device=tokens.device) if mask_BS is None else mask_BS
            seen = mask_BS.shape[1]
            place_B = torch.where(own_B, place_B, 0 if self.insertion.site.causal else seen)
        self._note(rows, seen, mask_BS, place_B)
        changed = dict(given)
        if mask_BS is not None:
            changed["attention_mask"] = among(mask_BS, visible(mask_BS, self.size, own_B), place_B)
        if takes(module, "position_ids"):
            changed["position_ids"] = self._positions(module, given, past, place_B, own_B)
        self.total, self.place_B = 0, place_B
        if past == 0:
            changed |= self._embedded(module, given)
            self.total = length + self.size
        return (), changed

    def _embedded(self, module: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        embeds_BTD = inputs.get("inputs_embeds")
        if embeds_BTD is None:
            embeds_BTD = module.get_input_embeddings()(inputs["input_ids"])  # type: ignore[operator]
        found = {"input_ids": None, "inputs_embeds": self._lengthened(embeds_BTD)}
        if isinstance(types_BT := inputs.get("token_type_ids"), Tensor):
            found["token_type_ids"] = among(types_BT, types_BT[:, :1].expand(-1, self.size), self.place_B)
        return found

    def _lengthened(self, h_BTD: Tensor) -> Tensor:
        """h with the insertion's tokens among its own; the insertion puts them in front."""
        longer_BSD: Tensor = self.insertion(h_BTD, None)
        return moved(longer_BSD, self.size, self.place_B)

    def _own(self, batch: Tensor) -> Tensor | None:
        """Which rows have the tokens, (B,); None: all. Others have as many columns that nothing sees: behind their own tokens,
        or before them where the stack is causal, so that their tokens keep their places."""
        own = self.insertion.context.own
        return None if own is None else own.flags(batch)

    def _positions(
        self, module: nn.Module, inputs: dict[str, Any], past: int, place_B: Tensor, own_B: Tensor | None
    ) -> Tensor | None:
        """Positions run over all tokens. None lets the model count, which comes to the same."""
        counter = self.counter
        if own_B is not None:
            return self._positions_by_row(module, inputs, past, place_B, own_B)
        if inputs.get("position_ids") is None and (counter is None or inputs.get("input_ids") is None or past):
            return None
        found_BT = positions(module, inputs, self.counter).expand(place_B.shape[0], -1)
        return found_BT + self.size if past else self._with_own(found_BT, counter, place_B)

    def _positions_by_row(
        self, module: nn.Module, inputs: dict[str, Any], past: int, place_B: Tensor, own_B: Tensor
    ) -> Tensor:
        """The positions of rows of which some have the tokens; all others count on without them."""
        found_BT = positions(module, inputs, self.counter).expand(len(place_B), -1)
        if past:
            if inputs.get("position_ids") is None:  # counted by the cache, which holds the added columns of all rows
                found_BT = found_BT - (past + found_BT.shape[1] - inputs["attention_mask"].shape[1])
            return found_BT + self.size * own_B.long().unsqueeze(1)
        mine_BS = self._with_own(found_BT, self.counter, torch.where(own_B, place_B, self.after))
        return torch.where(own_B.unsqueeze(1), mine_BS, among(found_BT, found_BT[:, :1].expand(-1, self.size), place_B))

    def _with_own(self, found_BT: Tensor, counter: Any, place_B: Tensor) -> Tensor:
        """The positions of a row's tokens with those of the insertion's among them."""
        ahead_B1 = (place_B - self.after).unsqueeze(1)
        column = torch.arange(found_BT.shape[1], device=found_BT.device)
        real_BT = column >= ahead_B1
        if counter is not None:
            real_BT = real_BT & (found_BT > counter.padding_idx)  # padding behind the text keeps its one position
        own_BL = found_BT.gather(1, ahead_B1) + self.after + torch.arange(self.size, device=found_BT.device)
        behind_BT = real_BT & (column >= place_B.unsqueeze(1))
        return among(torch.where(behind_BT, found_BT + self.size, found_BT), own_BL, place_B)

    def _note(self, rows: int, length: int, mask_BS: Tensor | None, place_B: Tensor) -> None:
        """Note the real tokens for gates and `tokens`: added tokens are not among them."""
        stack = self.insertion.site.tokens_of
        if not noting(self.insertion, stack):
            return
        if mask_BS is None:
            mask_BS = torch.ones(rows, length, dtype=torch.bool, device=place_B.device)
        note(self.insertion, stack, mask_BS, self.alone, self.size, place_B)

    def on_embedding(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The embedded input with the tokens among it, for a stack that reads no token ids."""
        rows, length = output.shape[:2]
        self.total, self.place_B = length + self.size, places(None, self.after, rows, output.device)
        self._note(rows, length, None, self.place_B)
        return self._lengthened(output)

    def on_exit(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """What the stack returns, without the added positions. Attention weights keep them."""
        if self.keeps or not self.total:
            return output
        if isinstance(output, tuple):
            return self._without(output)
        for name, value in output.items():
            output[name] = self._without(value)
        return output

    def _without(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._without(one) for one in value)
        if not (isinstance(value, Tensor) and value.dim() == 3 and value.shape[1] == self.total):
            return value
        return without(value, self.size, self.place_B)


class Crossing:
    """A pre-hook on the decoder's entry: added tokens of the encoder's output are real for cross-attention, though the
    mask that the user gave does not know them."""

    def __init__(self, tokens: VirtualTokens):
        self.insertion, self.size, self.after = tokens.insertion, tokens.size, tokens.after

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = named(module, args, kwargs)
        memory, mask_BS = given.get("encoder_hidden_states"), given.get("encoder_attention_mask")
        if memory is None:
            return None
        (rows, length), own = memory.shape[:2], self.insertion.context.own
        if own is not None:
            return self._by_row(given, memory, mask_BS, own)
        place_B = places(mask_BS, self.after, rows, memory.device)
        user_BS = mask_BS if mask_BS is not None else memory.new_ones(rows, length - self.size)
        longer = user_BS.shape[1] == length  # the user knows of the added tokens
        if longer:
            user_BS = without(user_BS, self.size, place_B)
        real_BS = among(user_BS, user_BS.new_zeros(rows, self.size), place_B).bool()
        self.insertion.context.masks_BS[self.insertion.site.tokens_of] = real_BS
        if mask_BS is None or longer:
            return None
        return (), {**given, "encoder_attention_mask": among(mask_BS, mask_BS.new_ones(rows, self.size), place_B)}

    def _by_row(self, given: dict[str, Any], memory: Tensor, mask_BS: Any, own: OwnRows) -> Any:
        if mask_BS is None:
            raise needs_mask(self.insertion)
        own_B, rows = own.flags(memory), len(memory)
        place_B = torch.where(own_B, places(mask_BS, self.after, rows, memory.device), mask_BS.shape[1])
        note(self.insertion, self.insertion.site.tokens_of, mask_BS, False, self.size, place_B)
        return (), {**given, "encoder_attention_mask": among(mask_BS, visible(mask_BS, self.size, own_B), place_B)}


def needs_mask(insertion: Insertion) -> UnipetError:
    """The error where no mask can hide added tokens from the rows that have none."""
    return UnipetError(
        f"{insertion.name!r} adds tokens to some rows, which a mask hides from the others: call the model with an attention_mask."
    )


def position_limit(module: nn.Module) -> int | None:
    """How many positions a stack with learned positions has; None where they are computed."""
    names = ("position", "wpe")
    tables = [
        one for path, one in module.named_modules() if isinstance(one, nn.Embedding) and any(n in path for n in names)
    ]
    limit = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    if not tables or limit is None:
        return None
    counter = padding_counter(module)
    return int(limit) - (0 if counter is None else counter.padding_idx + 1)
