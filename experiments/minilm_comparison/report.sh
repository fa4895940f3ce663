#!/usr/bin/env bash
# Tables, figures and the page of runs that run.sh has made.     bash experiments/minilm_comparison/report.sh
set -euo pipefail
here=experiments/minilm_comparison runs=runs/minilm_comparison
for kind in rates runs; do  # every record, one line each
  for record in $runs/$kind/*/result.json; do tr -s '\n ' ' ' <"$record"; echo; done >$here/$kind.jsonl
done
unipet report $runs/runs --rows $here/results.csv --pairs $here/pairs.csv --markdown $here/table.md --latex $here/table.tex \
  --figures $here/figures --html $runs/report.html >$here/report.txt
python $here/one_answer.py $runs/runs >$here/one_answer.csv
cat $here/report.txt
