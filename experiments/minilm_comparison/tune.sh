#!/usr/bin/env bash
# The learning rates of run.sh: one grid for every method, a seed of its own, scored on validation rows, never on the test rows.
#   bash experiments/minilm_comparison/tune.sh DATA      DATA/trec/train.jsonl, DATA/cr/..., DATA/subj/...
# JOBS sweeps at a time (2), one thread each. What is finished is not run again.
set -euo pipefail
export data=$1 out=runs/minilm_comparison/rates OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
tune() {
  UNIPET_SWEEP=$1 unipet train -m method="$1" optim.lr="$2" budget="$3" task=trec,cr,subj task.evaluation_split=validation \
    budget.max_steps=150 seed=100 model=minilm task.data_dir="$data/\${task.name}" task.max_length=64 task.selection=none \
    optim.batch_size=16 runs_dir=$out
}
export -f tune
xargs -P "${JOBS:-2}" -L 1 bash -c 'tune "$@"' tune <<'GRID'
adamix 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
mam 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
adapter 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
prefix_flat 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
lora 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
scaled_parallel_adapter 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
parallel_adapter 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
adapter_pfeiffer 5e-4,1e-3,2e-3,4e-3,8e-3 params_0p5
head_only 4e-3,1e-2,3e-2,1e-1,3e-1 none
GRID
unipet report $out --anyway
