#!/usr/bin/env bash
# AdaMix's ablations at full scale: eight variants, four GLUE tasks, five seeds. Any further words are overrides.
#   bash experiments/adamix_ablations/run.sh
# Merging, random and fixed routing and ensembling are ways of evaluating one trained run: its record has them under `mixture`;
# MNLI's evaluation set is compared on request, once the runs are there.
set -euo pipefail
here=experiments/adamix_ablations out=runs/adamix_ablations
unipet train --config-dir experiments/adamix experiment=adamix_ablations runs_dir=$out "$@"
for run in $out/adamix*-mnli-s*/; do [ -d "$run" ] && unipet evaluate "$run" --experts; done
python experiments/adamix/collect.py $out $here/full
