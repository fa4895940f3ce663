#!/usr/bin/env bash
# Eight methods and a floor on three tasks, two parameter budgets, three seeds; every method at the rate that tune.sh found.
#   bash experiments/minilm_comparison/run.sh DATA      DATA/trec/train.jsonl, DATA/mpqa/..., DATA/sst2/...
# JOBS sweeps at a time (2), one thread each. What is finished is not run again. `... DATA plan` prints what it will need and trains nothing.
set -euo pipefail
export data=$1 command="${2:-train} -m" here=experiments/minilm_comparison out=runs/minilm_comparison/runs OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
compare() {
  unipet $command method="$1" optim.lr="$2" budget="$3" task=trec,mpqa,sst2 seed=0,1,2 \
    budget.max_steps=120 model=minilm task.data_dir="$data/\${task.name}" task.max_length=64 task.max_evaluation=1000 \
    task.selection=none optim.batch_size=16 runs_dir=$out
}
export -f compare
xargs -P "${JOBS:-2}" -L 1 bash -c 'compare "$@"' compare <<'METHODS'
adamix 1.6e-2 params_0p5,params_1
mam 1e-3 params_0p5,params_1
adapter 4e-3 params_0p5,params_1
scaled_parallel_adapter 2e-3 params_0p5,params_1
lora 2e-3 params_0p5,params_1
parallel_adapter 2e-3 params_0p5,params_1
adapter_pfeiffer 8e-3 params_0p5,params_1
prefix_flat 1.28e-1 params_0p5,params_1
head_only 3e-1 params_0p5,params_1
METHODS
[ "$command" = "train -m" ] || exit 0
bash $here/report.sh
