#!/usr/bin/env bash
# AdaMix for generation at full scale: GPT-2 medium on E2E, WebNLG and DART, three seeds. Any further words are overrides.
#   bash experiments/adamix_nlg/run.sh DATA      DATA/webnlg and DATA/dart as JSON lines; E2E comes from the hub
set -euo pipefail
data=$1 here=experiments/adamix_nlg out=runs/adamix_nlg
shift
unipet train --config-dir experiments/adamix experiment=adamix_nlg_e2e runs_dir=$out "$@"
unipet train --config-dir experiments/adamix experiment=adamix_nlg_webnlg task.data_dir=$data/webnlg runs_dir=$out "$@"
unipet train --config-dir experiments/adamix experiment=adamix_nlg_dart task.data_dir=$data/dart runs_dir=$out "$@"
# "LoRA (repr.)" of the paper's table trained for a quarter of the epochs.
unipet train --config-dir experiments/adamix experiment=adamix_nlg_e2e method=adamix_lora_twin optim.epochs=5 optim.warmup_ratio=0.01902 runs_dir=$out/five_epochs "$@"
unipet report $out --published adamix:nlg
python experiments/adamix/collect.py $out $here/full
