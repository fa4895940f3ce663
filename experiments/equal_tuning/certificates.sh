#!/usr/bin/env bash
# The certificates of the study's methods in its setting: one run of each on TREC at one rate, verified again from its files.
#   bash experiments/equal_tuning/certificates.sh DATA      DATA/trec/train.jsonl, ...
set -euo pipefail
data=$1 here=experiments/equal_tuning out=runs/equal_tuning_certificates
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
methods=adapter,adapter_pfeiffer,sequential_adapter,parallel_adapter,parallel_adapter_attention,scaled_parallel_adapter
methods+=,prefix_flat,lora,dora,ia3,mam,adamix,mam_even
for task in trec; do
  unipet train -m --config-dir $here task=$task method=$methods budget=params_0p5 budget.max_steps=200 optim.lr=3e-3 seed=1001 \
    model=minilm precision=bf16 task.data_dir="$data/$task" task.max_length=64 task.max_evaluation=500 task.selection_size=200 \
    optim.batch_size=8 launcher=slots launcher.workers=2 runs_dir=$out < /dev/null
done
for run in "$out"/*-s1001-*; do
  unipet verify "$run" --deep
done
python experiments/compact_records.py $out $here/certificates.jsonl
