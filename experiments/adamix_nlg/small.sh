#!/usr/bin/env bash
# The same rows in small: a decoder of our own (experiments/own_base_models, 40 steps) on E2E, 20 steps, one seed; about three
# minutes of one core.
#   bash experiments/adamix_nlg/small.sh DATA      DATA as for experiments/own_base_models
set -euo pipefail
data=$1 here=experiments/adamix_nlg out=runs/adamix_nlg_small
[ -f $out/decoder/training.json ] || python experiments/own_base_models/train_base.py "$data" $out/decoder --architecture decoder --steps 40 --batch-tokens 256
unipet train --config-dir experiments/adamix experiment=adamix_nlg_e2e model=auto model.path=$out/decoder model.name=decoder task.data_dir="$data/e2e" task.max_source=128 task.max_target=80 task.decoding.num_beams=1 task.max_evaluation=10 task.decoding.max_new_tokens=24 optim.lr=5e-3 optim.batch_size=8 budget.max_steps=20 seed=0 runs_dir=$out/runs
python experiments/adamix/collect.py $out/runs $here
