#!/usr/bin/env bash
# AdaMix, its parts, and its single-module twins on four tasks; every arm tuned alike, then five fresh seeds.
#   bash experiments/adamix_twin/run.sh DATA             DATA/sst2/train.jsonl, DATA/mrpc/..., DATA/trec/..., DATA/rte/...
#   bash experiments/adamix_twin/run.sh DATA train mrpc  some parts alone: single (TREC and SST-2), mrpc, mrpc_twice, rte, rte_twice
# Two workers, one thread each. What is finished is not run again. `... DATA plan` prints what it will need and trains nothing.
set -euo pipefail
data=$1 command="${2:-train} -m" here=experiments/adamix_twin
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- single mrpc mrpc_twice rte rte_twice
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
arms=twin,adamix,mixture_only,consistency_only,adamix_unshared,twin_wide
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
  while read -r of task methods steps epochs; do
    [ "$of" != "$part" ] || compare "$task" "$methods" "$steps" "$epochs"
  done <<TASKS
single trec $arms 300 3
single trec twin 600 3
single sst2 $arms 300 3
single sst2 twin 600 3
mrpc mrpc $arms 800 10
mrpc_twice mrpc twin 1600 10
rte rte $arms 500 10
rte_twice rte twin 1000 10
TASKS
  [ "$command" = "train -m" ] || continue
  mkdir -p $here/$part
  asked=()
  [[ $part == *_twice ]] || asked=("${contrasts[@]}" --contrasts $here/$part/contrasts.csv)
  unipet report $out "${asked[@]}" --csv $here/$part/scores.csv > $here/$part/report.txt
  python experiments/compact_records.py $out $here/$part/runs.jsonl
  python $here/collect.py $here
done
