#!/usr/bin/env bash
# The same rows in small: MiniLM on RTE, 20 steps of 8 pairs, 40 validation pairs, one seed; one minute of one core.
#   bash experiments/adamix_glue/small.sh DATA      DATA/rte/train.jsonl, DATA/rte/validation.jsonl
set -euo pipefail
data=$1 here=experiments/adamix_glue out=runs/adamix_glue_small
unipet train --config-dir experiments/adamix experiment=adamix_glue_bert_base model=minilm optim=adamw optim.lr=4e-3 optim.batch_size=8 task=rte task.data_dir="$data/rte" task.max_length=48 task.max_evaluation=40 task.selection=none budget.max_steps=20 seed=0 runs_dir=$out
python experiments/adamix/collect.py $out $here
