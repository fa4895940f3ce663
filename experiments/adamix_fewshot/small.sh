#!/usr/bin/env bash
# The same protocol in small: MiniLM, which has no language model's output layer, so a head in place of prompts; SST-2 and TREC, 30
# examples of each label, three splits, 3 epochs; a few minutes of one core.
#   bash experiments/adamix_fewshot/small.sh DATA      DATA/sst2/train.jsonl, DATA/sst2/validation.jsonl, DATA/trec/...
set -euo pipefail
data=$1 here=experiments/adamix_fewshot out=runs/adamix_fewshot_small
unipet train experiment=adamix_fewshot model=minilm task=sst2,trec task.data_dir="$data/\${task.name}" task.split_seed=1,2,3 task.max_length=24 \
  task.max_evaluation=150 method=adamix,adapter_pfeiffer optim.lr=4e-3 optim.epochs=3 runs_dir=$out
python experiments/adamix/collect.py $out $here
