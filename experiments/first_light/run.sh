#!/usr/bin/env bash
# First light: seven methods on SST-2 with the embedded base model, two seeds, 300 steps each, every method at its
# tuned learning rate (tuning.csv).
#   bash experiments/first_light/run.sh DIR_WITH_SST2
set -euo pipefail
data=$1 out=runs/first_light/runs
common="task=sst2 task.data_dir=$data task.max_length=64 task.max_train=9600 task.selection=none budget.max_steps=300 seed=0,1 runs_dir=$out"
unipet train -m method=adapter,adamix optim.lr=4e-3 $common
unipet train -m method=prefix optim.lr=5e-4 $common
unipet train -m method=lora optim.lr=2e-3 $common
unipet train -m method=mam optim.lr=2e-4 $common
unipet train -m method=full optim.lr=2e-4 $common
unipet train -m method=head_only optim.lr=1e-1 $common
unipet report $out --rows experiments/first_light/results.csv
