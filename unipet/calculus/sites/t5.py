"""T5, mT5 and Flan-T5: pre-norm encoder and decoder; the feed-forward block gated (1.1) or not (1.0)."""

from unipet.calculus.sites.table import Architecture, Stack, Tap


def _attention(role: str, block: str, name: str) -> dict[str, tuple[Tap, ...]]:
    inside = f"{block}.{name}"
    return {
        f"{role}.q": (Tap(f"{inside}.q"),),
        f"{role}.k": (Tap(f"{inside}.k"),),
        f"{role}.v": (Tap(f"{inside}.v"),),
        f"{role}.heads": (Tap(inside, at="heads"),),
        f"{role}.o": (Tap(f"{inside}.o"),),
        role: (Tap(f"{inside}.o", x=inside),),
        f"{role}.post": (Tap(block, x=inside),),
    }


def _ffn(block: str) -> dict[str, tuple[Tap, ...]]:
    inside = f"{block}.DenseReluDense"
    return {
        "ffn.up": (Tap(f"{inside}.wi"), Tap(f"{inside}.wi_1")),
        "ffn.gate": (Tap(f"{inside}.wi_0"),),
        "ffn.mid": (Tap(f"{inside}.wo", at="input"),),
        "ffn.down": (Tap(f"{inside}.wo"),),
        "ffn": (Tap(f"{inside}.wo", x=inside),),
        "ffn.post": (Tap(block, x=inside),),
        "layer": (Tap(""),),
    }


def _outside(stack: str) -> dict[str, tuple[Tap, ...]]:
    return {"embed": (Tap(f"{stack}.embed_tokens"),), "norm": (Tap(f"{stack}.final_layer_norm"),)}


T5 = Architecture(
    name="t5",
    model_types=("t5", "mt5"),
    stacks={
        "encoder": Stack(
            layers="encoder.block",
            roles={
                **_attention("attn", "layer.0", "SelfAttention"),
                **_ffn("layer.1"),
                "norm": (Tap("layer.0.layer_norm"), Tap("layer.1.layer_norm")),
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
                "norm": (Tap("layer.0.layer_norm"), Tap("layer.1.layer_norm"), Tap("layer.2.layer_norm")),
            },
            outside=_outside("decoder"),
            norms={"attn": "layer.0.layer_norm", "cross": "layer.1.layer_norm", "ffn": "layer.2.layer_norm"},
            entry="decoder",
            causal=True,
        ),
    },
)
TABLES = (T5,)
