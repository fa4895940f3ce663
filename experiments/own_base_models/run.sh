#!/usr/bin/env bash
# Two base models of our own, adapted to E2E (meaning representation to text) and Multi30k (English to German).
#   bash experiments/own_base_models/run.sh DATA [SEEDS]      DATA/e2e/train.jsonl, DATA/multi30k_en_de/..., ...
# SEEDS is a comma list, 0 by default. A base model that is there is not trained again; nor is a finished run repeated.
set -euo pipefail
data=$1 seeds=${2:-0} here=experiments/own_base_models out=runs/own_base_models
for architecture in decoder encoder_decoder; do
  [ -f $out/$architecture/training.json ] ||
    python $here/train_base.py "$data" $out/$architecture --architecture $architecture
  cp $out/$architecture/training.json $here/$architecture.json
done
common="model=auto task=e2e,multi30k_en_de task.data_dir=$data/\${task.name} task.max_source=128 task.max_target=80
        task.decoding.num_beams=1 task.decoding.max_new_tokens=64 task.max_evaluation=200 task.selection_size=100
        optim.batch_size=16 budget.max_steps=150 seed=$seeds"
for kind in causal_generation seq2seq; do
  case $kind in causal_generation) base=decoder ;; *) base=encoder_decoder ;; esac
  each="$common model.path=$out/$base model.name=$base task.kind=$kind"
  unipet train -m method=lora,adamix_lora optim.lr=5e-3 $each runs_dir=$out/adapted
  unipet train -m method=mam,prefix optim.lr=2e-3 $each runs_dir=$out/adapted
  # The base model as it is: one step at a rate that changes nothing.
  unipet train -m method=lora optim.lr=1e-12 $each budget.max_steps=1 runs_dir=$out/unadapted
done
for part in adapted unadapted; do
  mkdir -p $here/results/$part
  for run in $out/$part/*-s[0-9]*/; do cp "$run/result.json" "$here/results/$part/$(basename "$run").json"; done
  unipet report $out/$part --rows $here/$part.csv
done
