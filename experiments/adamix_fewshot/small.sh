#!/usr/bin/env bash
# The same protocol in small: MiniLM, which has no language model's output layer, so a head in place of prompts; TREC, 4 examples of
# each label, two splits, 2 epochs; a minute of one core.
#   bash experiments/adamix_fewshot/small.sh DATA      DATA/trec/train.jsonl, DATA/trec/test.jsonl
set -euo pipefail
data=$1 here=experiments/adamix_fewshot out=runs/adamix_fewshot_small
unipet train experiment=adamix_fewshot model=minilm task=trec task.data_dir="$data/trec" task.shots=4 task.split_seed=1,2 task.max_length=16 task.max_evaluation=60 method=adamix,adapter_pfeiffer optim.lr=4e-3 optim.epochs=2 runs_dir=$out
python experiments/adamix/collect.py $out $here
