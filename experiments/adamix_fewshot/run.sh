#!/usr/bin/env bash
# AdaMix's few-shot protocol at full scale: RoBERTa-large, prompts, 30 examples of each label, five splits. Further words are overrides.
#   bash experiments/adamix_fewshot/run.sh DATA optim.lr=5e-4      DATA/mpqa and DATA/subj as JSON lines; the rest comes from the hub
set -euo pipefail
data=$1 here=experiments/adamix_fewshot out=runs/adamix_fewshot
shift
unipet train experiment=adamix_fewshot runs_dir=$out "$@"
unipet train experiment=adamix_fewshot task=mpqa_prompt task.data_dir="$data/mpqa" runs_dir=$out "$@"
unipet train experiment=adamix_fewshot task=subj_prompt task.data_dir="$data/subj" runs_dir=$out "$@"
unipet report $out
python experiments/adamix/collect.py $out $here/full
