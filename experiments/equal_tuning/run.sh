#!/usr/bin/env bash
# Thirteen methods on three tasks at 0.5 % of the parameters: equal trials of rate and scale for every method, five fresh seeds.
#   bash experiments/equal_tuning/run.sh DATA      DATA/trec/train.jsonl, DATA/mpqa/..., DATA/sst2/...
# Two workers, one thread each. What is finished is not run again. `... DATA plan` prints what it will need and trains nothing.
set -euo pipefail
data=$1 command="${2:-train} -m" here=experiments/equal_tuning out=runs/equal_tuning
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
methods=adapter,adapter_pfeiffer,sequential_adapter,parallel_adapter,parallel_adapter_attention,scaled_parallel_adapter
methods+=,prefix_flat,lora,dora,ia3,mam,adamix,mam_even
for task in trec mpqa sst2; do
  unipet $command --config-dir $here task=$task method=$methods budget=params_0p5 budget.max_steps=200 \
    search=racing search.trials=6 search.rungs=2 search.eta=3 'search.seeds=[100]' 'search.final_seeds=[1001,1002,1003,1004,1005]' \
    'optim.lr=tag(log,interval(5e-4,5e-2))' \
    "search.space_of.scaled_parallel_adapter={method.insertions.ffn.scaling: 'choice(1.0,2.0,4.0,8.0)'}" \
    "search.space_of.mam={method.insertions.ffn.scaling: 'choice(1.0,2.0,4.0,8.0)'}" \
    "search.space_of.mam_even={method.insertions.ffn.scaling: 'choice(1.0,2.0,4.0,8.0)'}" \
    "search.space_of.lora={method.insertions.attention.scaling.alpha: 'choice(16,32,64,128)'}" \
    "search.space_of.dora={method.insertions.attention.scaling.alpha: 'choice(16,32,64,128)'}" \
    model=minilm precision=bf16 task.data_dir="$data/$task" task.max_length=64 task.max_evaluation=500 task.selection_size=200 \
    optim.batch_size=8 launcher=slots launcher.workers=2 runs_dir=$out < /dev/null
done
[ "$command" = "train -m" ] || exit 0
contrasts=()
for pair in "parallel_adapter vs sequential_adapter" "parallel_adapter vs parallel_adapter_attention" \
  "scaled_parallel_adapter vs parallel_adapter" "mam_even vs scaled_parallel_adapter" "mam_even vs prefix_flat" "mam_even vs adapter" \
  "adamix vs sequential_adapter" "dora vs lora" "scaled_parallel_adapter vs lora"; do
  contrasts+=(--contrast "method=$pair")
done
unipet report $out "${contrasts[@]}" --contrasts $here/contrasts.csv --csv $here/scores.csv --pairs $here/pairs.csv \
  --averages $here/averages.csv --tuning $here/tuning.csv --figures $here/figures > $here/report.txt
python experiments/compact_records.py $out $here/runs.jsonl
python $here/seeds_and_trials.py $here
