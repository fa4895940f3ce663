#!/usr/bin/env bash
# The learning rates of run.sh: one grid for every method, two of the three tasks, a seed of its own, scored on validation rows, never
# on test rows.     bash experiments/minilm_comparison/tune.sh DATA     DATA/trec/train.jsonl, DATA/mpqa/...
# JOBS sweeps at a time (2), one thread each. What is finished is not run again.
set -euo pipefail
export data=$1 out=runs/minilm_comparison/rates OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
tune() {
  unipet train -m method="$1" optim.lr="$2" budget="$3" task=trec,mpqa task.evaluation_split=validation \
    budget.max_steps=150 seed=100 model=minilm task.data_dir="$data/\${task.name}" task.max_length=64 task.selection=none \
    optim.batch_size=16 runs_dir=$out
}
export -f tune
xargs -P "${JOBS:-2}" -L 1 bash -c 'tune "$@"' tune <<'GRID'
adamix 1e-3,2e-3,4e-3,8e-3 params_0p5
mam 1e-3,2e-3,4e-3,8e-3 params_0p5
prefix_flat 1e-3,2e-3,4e-3,8e-3 params_0p5
adapter 1e-3,2e-3,4e-3,8e-3 params_0p5
scaled_parallel_adapter 1e-3,2e-3,4e-3,8e-3 params_0p5
lora 1e-3,2e-3,4e-3,8e-3 params_0p5
parallel_adapter 1e-3,2e-3,4e-3,8e-3 params_0p5
adapter_pfeiffer 1e-3,2e-3,4e-3,8e-3 params_0p5
head_only 3e-3,1e-2,3e-2,1e-1 none
GRID
# Where the best rate was an end of the grid, the grid goes on.
xargs -P "${JOBS:-2}" -L 1 bash -c 'tune "$@"' tune <<'GRID'
adamix 1.6e-2,3.2e-2 params_0p5
prefix_flat 1.6e-2,3.2e-2,6.4e-2,1.28e-1,2.56e-1 params_0p5
mam 5e-4 params_0p5
adapter_pfeiffer 1.6e-2 params_0p5
head_only 3e-1,1 none
GRID
unipet report $out --anyway
