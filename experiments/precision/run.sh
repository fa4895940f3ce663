#!/usr/bin/env bash
# Five methods on two tasks in float32 and bfloat16, three seeds; every method at the rate of experiments/minilm_comparison.
#   bash experiments/precision/run.sh DATA      DATA/trec/train.jsonl, DATA/mpqa/... JOBS sweeps at a time (2), one thread each.
# Then one method in float16, too, which a processor without float16 instructions emulates slowly. What is finished is not run again.
set -euo pipefail
export data=$1 here=experiments/precision out=runs/precision OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
compare() {
  unipet train -m method="$1" optim.lr="$2" seed="$3" task="$4" precision="$5" budget=params_0p5 budget.max_steps=50 model=minilm \
    task.data_dir="$data/\${task.name}" task.max_length=32 task.max_evaluation=300 task.selection=none optim.batch_size=16 \
    runs_dir="$out"
}
export -f compare
xargs -P "${JOBS:-2}" -L 1 bash -c 'compare "$@"' compare <<'METHODS'
lora 2e-3 0,1,2 trec,mpqa fp32,bf16
adapter 4e-3 0,1,2 trec,mpqa fp32,bf16
mam 1e-3 0,1,2 trec,mpqa fp32,bf16
adamix 1.6e-2 0,1,2 trec,mpqa fp32,bf16
prefix_flat 1.28e-1 0,1,2 trec,mpqa fp32,bf16
METHODS
unipet train -m method=lora optim.lr=2e-3 task=trec precision=fp32,bf16,fp16 budget.max_steps=60 model=minilm \
  task.data_dir="$data/\${task.name}" task.max_length=32 task.max_evaluation=300 task.selection=none optim.batch_size=16 runs_dir=$out/fp16
python $here/collect.py $out $here
