#!/usr/bin/env bash
# Can a search over designs beat the papers' methods at equal effort? Searched on two tasks, run on these and on two others.
#   bash experiments/design_search/run.sh DATA      DATA/trec/train.jsonl, DATA/sst2/..., DATA/mpqa/..., DATA/subj/...
# Two workers, one thread each. What is finished is not run again. `... DATA plan` prints what it will need and trains nothing.
set -euo pipefail
data=$1 command="${2:-train} -m" here=experiments/design_search out=runs/design_search
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fixed=(budget=params_0p5 budget.max_steps=200 model=minilm precision=bf16 task.max_length=64 task.max_evaluation=500
  task.selection_size=200 optim.batch_size=8 launcher=slots launcher.workers=2)
tuned=(search.trials=8 'search.seeds=[100]' 'search.final_seeds=[1001,1002,1003,1004,1005]' 'optim.lr=tag(log,interval(5e-4,5e-2))')
for task in trec sst2; do
  unipet $command search.space=unified_view task=$task task.data_dir="$data/$task" runs_dir=$out/searched \
    search=optuna search.startup=4 search.batch=2 "${tuned[@]}" "${fixed[@]}" < /dev/null
  unipet $command method=mam,adamix task=$task task.data_dir="$data/$task" runs_dir=$out/searched \
    search=random "${tuned[@]}" "search.space_of.mam={method.insertions.ffn.scaling: 'choice(1.0,2.0,4.0,8.0)'}" "${fixed[@]}" < /dev/null
done
[ "$command" = "train -m" ] || exit 0
# What each arm chose on each task, as a method of its own with its rate, on the tasks that took no part.
python $here/chosen.py $out/searched $out/designs
grep -v ^random $out/designs/rates.txt | while read -r design rate; do
  for task in mpqa subj; do
    unipet train -m method=$out/designs/"$design".yaml optim.lr="$rate" task=$task task.data_dir="$data/$task" \
      seed=1001,1002,1003,1004,1005 task.selection=train_holdout runs_dir=$out/transferred "${fixed[@]}" < /dev/null
  done
done
unipet report $out/searched --anyway --tuning $here/tuning.csv --figures $here/figures > $here/report.txt
python experiments/compact_records.py $out/searched $here/searched.jsonl
python experiments/compact_records.py $out/transferred $here/transferred.jsonl
mkdir -p $here/method && cp $out/designs/*.yaml $here/method/ && cp $out/designs/rates.txt $here
python $here/contrasts.py $here
