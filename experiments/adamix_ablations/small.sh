#!/usr/bin/env bash
# The same variants in small: MiniLM on TREC, 30 steps of 8 questions, 60 test questions, one seed; two minutes of one core.
#   bash experiments/adamix_ablations/small.sh DATA      DATA/trec/train.jsonl, DATA/trec/test.jsonl
set -euo pipefail
data=$1 here=experiments/adamix_ablations out=runs/adamix_ablations_small
unipet train --config-dir experiments/adamix experiment=adamix_ablations model=minilm optim=adamw optim.lr=8e-3 optim.batch_size=8 task=trec task.data_dir="$data/trec" task.max_length=16 task.max_evaluation=60 task.selection=none budget.max_steps=30 seed=0 runs_dir=$out
python experiments/adamix/collect.py $out $here
