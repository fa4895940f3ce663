#!/usr/bin/env bash
# The same rows in small: MiniLM on MRPC and RTE, 40 steps of 8 pairs, two seeds; a few minutes of one core.
#   bash experiments/adamix_glue/small.sh DATA      DATA/mrpc/train.jsonl, DATA/mrpc/validation.jsonl, DATA/rte/...
set -euo pipefail
data=$1 here=experiments/adamix_glue out=runs/adamix_glue_small
unipet train --config-dir experiments/adamix experiment=adamix_glue_bert_base model=minilm optim=adamw optim.lr=4e-3 optim.batch_size=8 \
  task=mrpc,rte task.data_dir="$data/\${task.name}" task.max_length=64 task.max_evaluation=100 task.selection=none budget.max_steps=40 seed=0,1 runs_dir=$out
python experiments/adamix/collect.py $out $here
