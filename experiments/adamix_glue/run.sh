#!/usr/bin/env bash
# AdaMix on GLUE at full scale: RoBERTa-large (r = 16) and BERT-base (r = 48), five seeds. Any further words are overrides.
#   bash experiments/adamix_glue/run.sh
set -euo pipefail
here=experiments/adamix_glue out=runs/adamix_glue
unipet train --config-dir experiments/adamix experiment=adamix_glue_roberta_large runs_dir=$out/roberta_large "$@"
unipet train --config-dir experiments/adamix experiment=adamix_glue_bert_base runs_dir=$out/bert_base "$@"
unipet report $out/roberta_large --published adamix:glue_roberta_large
unipet report $out/bert_base --published adamix:glue_bert_base
python experiments/adamix/collect.py $out $here/full
