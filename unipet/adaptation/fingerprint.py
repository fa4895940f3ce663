"""A fingerprint of a base model: over every value, so that two models which differ anywhere have two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipet.calculus.sites import outside, prefix_of
from unipet.calculus.weights import plain_tensors

#: A parameter's value before training, from its name and its value now.
Original = Callable[[str, Tensor], Tensor]

_SAMPLES = 64


@dataclass(frozen=True)
class Fingerprint:
    """What a base model is, in two precisions, each as 16 hexadecimal digits of a sha256.

    `exact` covers every bit. `rounded` covers every value as bfloat16, so that it stays when the model is cast; it is
    compared only where the precision differs, because it does not see smaller differences.
    """

    exact: str
    rounded: str
    dtype: str  # of the values, such as "float32"; several are joined by "+"

    def same(self, other: Fingerprint) -> bool:
        """Whether both are of one base model."""
        return self.exact == other.exact if self.dtype == other.dtype else self.rounded == other.rounded


@torch.no_grad()
def fingerprint(model: nn.Module, head: Collection[str], original: Original = lambda name, value: value) -> Fingerprint:
    """The fingerprint over names, shapes and values of all parameters and stored buffers but those of the `head`. Of 4-bit
    weights it covers the codes, not their scales: bitsandbytes rounds these while the model computes on some CPUs.

    `original` gives a parameter's value before training where the method unfroze it.
    """
    exact, rounded, dtypes = hashlib.sha256(), hashlib.sha256(), set[str]()
    for name, tensor in _base_tensors(model, head, original):
        title = f"{name} {tuple(tensor.shape)} ".encode()
        exact.update(title)
        rounded.update(title)
        dtypes.add(str(tensor.dtype).removeprefix("torch."))
        for plain in plain_tensors(tensor):
            exact.update(_bytes(plain))
            rounded.update(_bytes(plain.to(torch.bfloat16)))
    return Fingerprint(exact.hexdigest()[:16], rounded.hexdigest()[:16], "+".join(sorted(dtypes)))


@torch.no_grad()
def sampled_fingerprint(model: nn.Module, head: Collection[str]) -> str:
    """The fingerprint of adapters of format 2: 64 evenly spaced values of every parameter."""
    digest = hashlib.sha256()
    prefix = _common_prefix(model)
    for name, parameter in sorted(model.named_parameters()):
        if name in head:
            continue
        values = b"".join(_sampled(plain) for plain in plain_tensors(parameter))
        digest.update(f"{name[len(prefix) :]} {tuple(parameter.shape)} ".encode() + values)
    return digest.hexdigest()[:16]


def _base_tensors(model: nn.Module, head: Collection[str], original: Original) -> Iterator[tuple[str, Tensor]]:
    """The base model's parameters and stored buffers, in order of their names, which do not begin with the base model's
    place in `model`: with a head or without, it is one base model."""
    stored = model.state_dict().keys()  # first: a module that keeps its weights packed unpacks them for it
    parameters = dict(model.named_parameters())
    buffers = {name: each for name, each in model.named_buffers() if name in stored}
    prefix = _common_prefix(model)
    for name, tensor in sorted({**buffers, **parameters}.items()):
        if name in head or name.startswith("_unipet"):
            continue
        yield name.removeprefix(prefix), original(name, tensor) if name in parameters else tensor


def _common_prefix(model: nn.Module) -> str:
    return prefix_of(model) if outside(model) else ""


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().flatten().cpu().contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]


def _sampled(tensor: Tensor) -> bytes:
    flat = tensor.flatten()
    at = torch.linspace(0, max(flat.numel() - 1, 0), min(_SAMPLES, flat.numel()), device=flat.device).long()
    return flat[at].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
