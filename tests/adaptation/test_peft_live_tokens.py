"""The installed peft beside ours where tokens are the adapter: virtual ones that a network makes, and rows of the embedding."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import yaml
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from unipet.config import conf_dir

# peft 0.21 asks transformers by a name that 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def shipped(method: str) -> dict[str, Any]:
    given: dict[str, Any] = yaml.safe_load((conf_dir() / "method" / f"{method}.yaml").read_text(encoding="utf-8"))
    return {**given, "unfreeze": []}


def randomised(model: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    own = unipet.parameters(model)
    with torch.no_grad():
        for parameter in own.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return {name.rpartition("/")[2]: parameter for name, parameter in own.items()}


def compare(model: Any, theirs: Any, arch: str, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Outputs, and the gradients of ours beside theirs."""
    batch = ARCHS[arch].batch()
    found, expected = model(**batch).logits, theirs(**batch).logits
    base = ARCHS[arch].build()(**batch).logits
    assert (found[:, -base.shape[1] :] - base).abs().max() > 1e-3, "it does nothing"
    assert torch.allclose(found, expected, atol=1e-5)
    probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    for ours, other in pairs:
        assert ours.grad is not None and other.grad is not None
        assert torch.allclose(ours.grad, other.grad, atol=2e-5 * max(1.0, float(other.grad.abs().max())))


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_virtual_tokens_of_a_network(arch: str) -> None:
    spec = shipped("p_tuning")
    spec["insertions"]["prompt"]["function"]["size"] = 4
    spec["insertions"]["prompt"]["composition"] = {"name": "concat", "after": "start", "keep_outputs": True}
    model = ARCHS[arch].build()
    unipet.adapt(model, spec)
    own = randomised(model)
    config = peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=128, task_type="CAUSAL_LM")
    theirs: Any = peft.get_peft_model(ARCHS[arch].build(), config).eval()
    encoder = dict(theirs.prompt_encoder.default.named_parameters())
    places = {"tokens": "embedding.weight"}
    for slot, number in (("hidden", 0), ("hidden2", 2), ("out", 4)):
        places |= {f"{slot}.{leaf}": f"mlp_head.{number}.{leaf}" for leaf in ("weight", "bias")}
    assert places.keys() == own.keys() and set(places.values()) == encoder.keys()
    with torch.no_grad():
        for slot, place in places.items():
            encoder[place].copy_(own[slot])
    compare(model, theirs, arch, [(own[slot], encoder[place]) for slot, place in places.items()])


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_rows_of_the_embedding(arch: str) -> None:
    """GPT-2's output layer is tied to it, Llama's here is not."""
    spec, ids = shipped("trainable_tokens"), [7, 20, 33]
    spec["insertions"]["tokens"]["function"]["ids"] = ids
    model = ARCHS[arch].build()
    unipet.adapt(model, spec)
    own = randomised(model)
    base = ARCHS[arch].build()
    rows = base.get_input_embeddings().weight.detach()[ids].clone()
    theirs: Any = peft.get_peft_model(base, peft.TrainableTokensConfig(token_indices=ids)).eval()
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    assert len(trained) == len(own) == 1
    (mine,) = own.values()
    with torch.no_grad():
        trained[0].copy_(rows + mine)
    compare(model, theirs, arch, [(mine, trained[0])])
