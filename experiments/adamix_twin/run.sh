#!/usr/bin/env bash
# AdaMix, its parts, and its single-module twins on four tasks; every arm tuned alike, then five fresh seeds.
#   bash experiments/adamix_twin/run.sh DATA             DATA/sst2/train.jsonl, DATA/mrpc/..., DATA/trec/..., DATA/rte/...
#   bash experiments/adamix_twin/run.sh DATA train mrpc  one part alone: single (TREC and SST-2), mrpc or rte; each takes an hour or more
# Two workers, one thread each. What is finished is not run again. `... DATA plan` prints what it will need and trains nothing.
set -euo pipefail
data=$1 command="${2:-train} -m" here=experiments/adamix_twin
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- single mrpc rte
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
contrasts=()
for pair in "adamix vs twin" "adamix vs twin_wide" "mixture_only vs twin" "consistency_only vs twin" "adamix vs mixture_only" \
  "adamix vs consistency_only" "adamix vs adamix_unshared"; do
  contrasts+=(--contrast "method=$pair")
done
compare() {
  unipet $command --config-dir $here task="$1" method="$2" budget.max_steps="$3" optim.epochs="$4" \
    'optim.lr=choice(2e-3,5e-3,1.2e-2,3e-2)' search=halving search.trials=4 search.rungs=2 search.eta=2 'search.seeds=[100]' \
    'search.final_seeds=[1001,1002,1003,1004,1005]' model=minilm precision=bf16 task.data_dir="$data/$1" task.max_length=64 \
    task.max_evaluation=500 task.selection_size=200 optim.batch_size=8 launcher=slots launcher.workers=2 runs_dir=$out < /dev/null
}
for part in "$@"; do
  out=runs/adamix_twin/$part
  while read -r of task steps epochs; do
    [ "$of" = "$part" ] || continue
    compare "$task" twin,adamix,mixture_only,consistency_only,adamix_unshared,twin_wide "$steps" "$epochs"
    compare "$task" twin $((2 * steps)) "$epochs"
  done <<'TASKS'
single trec 300 3
single sst2 300 3
mrpc mrpc 800 10
rte rte 800 10
TASKS
  [ "$command" = "train -m" ] || continue
  mkdir -p $here/$part
  unipet report $out "${contrasts[@]}" --contrasts $here/$part/contrasts.csv --csv $here/$part/scores.csv > $here/$part/report.txt
  python experiments/compact_records.py $out $here/$part/runs.jsonl
  python $here/collect.py $here
done
