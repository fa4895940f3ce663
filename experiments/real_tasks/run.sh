#!/usr/bin/env bash
# Real tasks on the embedded base model: classification (TREC), regression (STS-B), pairs (MRPC).
#   bash experiments/real_tasks/run.sh DATA [SEEDS]      DATA/trec/train.jsonl, DATA/stsb/..., DATA/mrpc/...
# SEEDS is a comma list, 0 by default. What is finished is not run again.
set -euo pipefail
data=$1 seeds=${2:-0} here=experiments/real_tasks out=runs/real_tasks
common="model=minilm task.data_dir=$data/\${task.name} task.max_length=64 task.selection_size=200 optim.batch_size=16
        seed=$seeds runs_dir=$out"
for given in "stsb 200" "trec 150" "mrpc 120"; do
  read -r task steps <<<"$given"
  each="task=$task budget.max_steps=$steps $common"
  unipet train -m method=lora,prefix,adamix_lora optim.lr=5e-4 $each
  unipet train -m method=mam optim.lr=2e-4 $each
  unipet train -m method=head_only optim.lr=1e-2 $each
done
unipet train -m method=lora optim.lr=5e-4 task=stsb budget.max_steps=800 $common
unipet train -m method=lora optim.lr=5e-4 task=mrpc budget.max_steps=600 $common
unipet train -m method=lora,prefix,adamix_lora optim.lr=2e-3 task=trec budget.max_steps=150 $common
mkdir -p $here/results
for run in $out/*-s[0-9]*/; do cp "$run/result.json" "$here/results/$(basename "$run").json"; done
unipet report $out --rows $here/results.csv
