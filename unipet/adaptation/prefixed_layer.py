"""A layer of a KV cache that holds a prefix in front of its tokens, where whoever looks finds the tokens alone.

A KV cache grows by copying itself. A prefix in front of it would be one more copy of all that for every token; here it is
copied with the rest. `keys` and `values` are views without the prefix, made when somebody asks. A layer that is changed by
others, or grows without the prefix, becomes what it was before, and so does a copy.

Shapes: B batch, S cached tokens, L prefix length, G key/value heads, E head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from unipet.adaptation.attention import HeadsSite
    from unipet.adaptation.ready_prefix import Pair

_OWN = ("_site", "_cache", "_prefix", "_whole")


class PrefixedLayer(DynamicLayer):
    """`site` is where the prefix (each (G, L, E)) belongs, `whole` are keys and values behind it, (B, G, L + S, E)."""

    _site: ref[HeadsSite]
    _cache: ref[Any]
    _prefix: Pair
    _whole: Pair

    @classmethod
    def takes_over(cls, layer: DynamicLayer, cache: Any, site: HeadsSite, prefix: Pair, whole: Pair) -> None:
        """Let `layer` of `cache` be one of these: `whole` without the prefix is what it holds."""
        del layer.keys, layer.values
        own: Any = layer
        own.__class__ = cls
        own._site, own._cache, own._prefix, own._whole = ref(site), ref(cache), prefix, whole

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Grow, and return what the attention module computes with: behind the prefix, where this pass has the same one."""
        site = self._site()
        if site is None or not site.goes_on_with(self._prefix, self._cache()):
            self._leave()
            return self.update(key_states, value_states, *args, **kwargs)
        keys, values = self._whole
        self._whole = torch.cat((keys, key_states), -2), torch.cat((values, value_states), -2)
        return self._whole

    def get_seq_length(self) -> int:
        """The number of tokens behind the prefix; asked several times for each token, and so without a view."""
        return self._whole[0].shape[2] - self._prefix[0].shape[1]

    @property
    def keys(self) -> Tensor:
        return self._tokens(0)

    @keys.setter
    def keys(self, keys: Tensor | None) -> None:
        self._leave()
        self.keys = keys

    @property
    def values(self) -> Tensor:
        return self._tokens(1)

    @values.setter
    def values(self, values: Tensor | None) -> None:
        self._leave()
        self.values = values

    def _tokens(self, number: int) -> Tensor:
        found: Tensor = self._whole[number][:, :, self._prefix[0].shape[1] :]
        return found

    def _leave(self) -> None:
        keys, values = self.keys, self.values
        del self._site, self._cache, self._prefix, self._whole
        self.__class__ = DynamicLayer
        self.keys, self.values = keys, values

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = {name: value for name, value in vars(self).items() if name not in _OWN}
        return DynamicLayer, (), {**state, "keys": self.keys, "values": self.values}
