"""`UnipetError`, the one error for every mistake of a user, and the search for the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

#: Name in other libraries -> names here: an option, a key inside its group, or a key with its group.
SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "size r rank lora_r lora_rank dim mid_dim bottleneck bottleneck_dim bottleneck_size hidden_size adapter_size "
        "adapter_dim prefix_length prefix_len preseqlen prompt_length prompt_len num_virtual_tokens num_tokens length".split(),
        ("size", "function.size", "insertions.NAME.function.size", "method.insertions.NAME.function.size"),
    ),
    **dict.fromkeys("learning_rate lr learningrate".split(), ("lr", "optim.lr")),
    **dict.fromkeys(
        "bs batch batchsize batch_size train_batch_size per_device_train_batch_size effective_batch".split(),
        ("batch_size", "optim.batch_size"),
    ),
    **dict.fromkeys("eval_batch_size per_device_eval_batch_size".split(), ("eval_batch_size", "optim.eval_batch_size")),
    **dict.fromkeys("epochs epoch num_epochs num_train_epochs max_epochs".split(), ("epochs", "optim.epochs")),
    **dict.fromkeys("steps step max_steps num_steps total_steps".split(), ("max_steps", "budget.max_steps")),
    **dict.fromkeys("wd weight_decay decay".split(), ("weight_decay", "optim.weight_decay")),
    **dict.fromkeys("warmup warmup_ratio warmup_steps".split(), ("warmup_ratio", "optim.warmup_ratio")),
    **dict.fromkeys("schedule scheduler lr_scheduler lr_scheduler_type".split(), ("schedule", "optim.schedule")),
    **dict.fromkeys("clip max_grad_norm grad_clip gradient_clip_val clip_grad".split(), ("clip", "optim.clip")),
    **dict.fromkeys(
        "early_stopping early_stopping_patience early_stop patience".split(), ("patience", "task.patience")
    ),
    **dict.fromkeys("class_weight class_weights label_weights".split(), ("class_weights", "task.class_weights")),
    **dict.fromkeys("optimizer optimiser".split(), ("optim",)),
    **dict.fromkeys("dataset data dataset_name".split(), ("task",)),
    **dict.fromkeys("data_dir data_path data_folder".split(), ("data_dir", "task.data_dir")),
    **dict.fromkeys("max_length max_seq_length max_len seq_len".split(), ("max_length", "task.max_length")),
    **dict.fromkeys("max_train max_train_samples num_train".split(), ("max_train", "task.max_train")),
    **dict.fromkeys("model_name model_name_or_path base_model backbone path".split(), ("path", "model.path", "model")),
    **dict.fromkeys("output_dir out_dir outdir out output run_dir".split(), ("runs_dir",)),
    **dict.fromkeys("dtype fp16 bf16 torch_dtype amp".split(), ("precision",)),
    **dict.fromkeys("gradient_checkpointing activation_checkpointing".split(), ("checkpointing",)),
    **dict.fromkeys("torch_compile jit".split(), ("compile",)),
    **dict.fromkeys("attn_implementation attn".split(), ("attention", "model.attention")),
    **dict.fromkeys("load_in_4bit load_in_8bit bits quantize qlora".split(), ("quantization", "model.quantization")),
    **dict.fromkeys("alpha lora_alpha".split(), ("alpha", "scaling.alpha")),
    **dict.fromkeys("dropout lora_dropout drop p".split(), ("dropout", "function.dropout")),
    **dict.fromkeys("act activation_function nonlinearity non_linearity".split(), ("activation",)),
    **dict.fromkeys("site target_modules modules targets role roles sites where".split(), ("site", "position.site")),
    **dict.fromkeys("layers layers_to_transform layer layer_indices".split(), ("layers", "position.layers")),
    **dict.fromkeys("random_seed manual_seed".split(), ("seed",)),
    **dict.fromkeys("peft peft_method adapter_config".split(), ("method",)),
    **dict.fromkeys("init_weights initialization initialisation initializer".split(), ("init",)),
    **dict.fromkeys("num_experts n_experts".split(), ("experts",)),
    **dict.fromkeys("wandb report_to logger logging".split(), ("tracking",)),
}


LONGEST = 200  # characters that an error shows of a value
_LONG = 1500  # characters of a message from which on its long words are shortened


class UnipetError(ValueError):
    """A user's mistake. Its message says what was given, what is allowed, and what to do next.

    What a user gives has any length: in a long message, words longer than `LONGEST` are shortened.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= _LONG else _LONG_WORD.sub(_shortened, message))


_LONG_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:LONGEST]}..."


def nearest(name: object, allowed: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the allowed name closest to `name`, or "". Synonyms come first (`SYNONYMS`), then names
    with the same letters in another order, then similar names."""
    allowed, text = list(allowed), str(name)[:LONGEST]
    meant = [known for known in SYNONYMS.get(text.lower(), ()) if known in allowed]
    if meant:
        return f" Did you mean '{meant[0]}'?"
    match = get_close_matches(text, allowed, n=5, cutoff=0.5)
    swapped = [known for known in match if sorted(known) == sorted(text)]  # the same letters in another order
    return f" Did you mean '{[*swapped, *match][0]}'?" if match else ""


def not_allowed(key: str, value: object, allowed: str, advice: str = "") -> UnipetError:
    """The error for a value of the wrong type or outside the limits, with the full key, the value and what is allowed.
    `advice` says what to do if that is not obvious."""
    return UnipetError(f"{key}: {value!r:.200} given; allowed: {allowed}.{advice and ' '}{advice}")


def unknown(key: str, value: object, allowed: Iterable[str]) -> UnipetError:
    """The error for an unknown name, with the full key, the name, the allowed names and the nearest one."""
    names = sorted(str(name) for name in allowed)
    return UnipetError(
        f"{key}: unknown {value!r:.200}. Allowed: {', '.join(names) or '(nothing)'}.{nearest(value, names)}"
    )
