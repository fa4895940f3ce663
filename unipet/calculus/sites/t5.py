"""T5, mT5 and Flan-T5: pre-norm encoder and decoder; the feed-forward block gated (1.1) or not (1.0)."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack


def _attention(role: str, block: str, name: str) -> dict[str, tuple[HookPoint, ...]]:
    inside = f"{block}.{name}"
    return {
        f"{role}.q": (HookPoint(f"{inside}.q"),),
        f"{role}.k": (HookPoint(f"{inside}.k"),),
        f"{role}.v": (HookPoint(f"{inside}.v"),),
        f"{role}.heads": (HookPoint(inside, at="heads"),),
        f"{role}.o": (HookPoint(f"{inside}.o"),),
        role: (HookPoint(f"{inside}.o", x=inside),),
        f"{role}.post": (HookPoint(block, x=inside),),
    }


def _ffn(block: str) -> dict[str, tuple[HookPoint, ...]]:
    inside = f"{block}.DenseReluDense"
    return {
        "ffn.up": (HookPoint(f"{inside}.wi"), HookPoint(f"{inside}.wi_1")),
        "ffn.gate": (HookPoint(f"{inside}.wi_0"),),
        "ffn.mid": (HookPoint(f"{inside}.wo", at="input"),),
        "ffn.down": (HookPoint(f"{inside}.wo"),),
        "ffn": (HookPoint(f"{inside}.wo", x=inside),),
        "ffn.post": (HookPoint(block, x=inside),),
        "layer": (HookPoint(""),),
    }


def _outside(stack: str) -> dict[str, tuple[HookPoint, ...]]:
    return {"embed": (HookPoint(f"{stack}.embed_tokens"),), "norm": (HookPoint(f"{stack}.final_layer_norm"),)}


T5 = Architecture(
    name="t5",
    model_types=("t5", "mt5"),
    stacks={
        "encoder": Stack(
            layers="encoder.block",
            roles={
                **_attention("attn", "layer.0", "SelfAttention"),
                **_ffn("layer.1"),
                "norm": (HookPoint("layer.0.layer_norm"), HookPoint("layer.1.layer_norm")),
            },
            outside=_outside("encoder"),
            norms={"attn": "layer.0.layer_norm", "ffn": "layer.1.layer_norm"},
            entry="encoder",
        ),
        "decoder": Stack(
            layers="decoder.block",
            roles={
                **_attention("attn", "layer.0", "SelfAttention"),
                **_attention("cross", "layer.1", "EncDecAttention"),
                **_ffn("layer.2"),
                "norm": (
                    HookPoint("layer.0.layer_norm"),
                    HookPoint("layer.1.layer_norm"),
                    HookPoint("layer.2.layer_norm"),
                ),
            },
            outside=_outside("decoder"),
            norms={"attn": "layer.0.layer_norm", "cross": "layer.1.layer_norm", "ffn": "layer.2.layer_norm"},
            entry="decoder",
            causal=True,
        ),
    },
)
TABLES = (T5,)
