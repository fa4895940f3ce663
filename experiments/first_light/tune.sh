#!/usr/bin/env bash
# Learning rates: four per method, one seed, scored on rows of the training split (make_holdout.py), never on validation.
#   bash experiments/first_light/tune.sh DIR_WITH_SST2
set -euo pipefail
data=$1 out=runs/first_light
python experiments/first_light/make_holdout.py "$data" $out/holdout
common="task=sst2 task.data_dir=$out/holdout task.max_length=64 task.selection=none budget.max_steps=200 seed=100 runs_dir=$out/tuning"
unipet train -m method=adapter,prefix,lora,mam,adamix optim.lr=5e-4,1e-3,2e-3,4e-3 $common
unipet train -m method=full optim.lr=2e-5,5e-5,1e-4,2e-4 $common
unipet train -m method=head_only optim.lr=1e-3,4e-3,1e-2,3e-2 $common
# The first grid broke prefix and mam at every rate above its lowest, so both get two lower ones.
unipet train -m method=prefix,mam optim.lr=1e-4,2e-4 $common
# Where the best rate was the grid's highest, the grid goes on until it is not.
unipet train -m method=adapter,adamix optim.lr=8e-3 $common
unipet train -m method=head_only optim.lr=1e-1,3e-1 $common
unipet train -m method=full optim.lr=4e-4 $common
