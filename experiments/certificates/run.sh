#!/usr/bin/env bash
# The certificates of the other experiments' settings: one seed on one task of each (real_tasks: three), trained again and verified from its files.
#   bash experiments/certificates/run.sh DATA      DATA/trec/..., sst2, mrpc, and those of own_base_models
# Two workers, one thread each. What is finished is not run again. The unified view's rows train for a few steps on a few examples.
set -euo pipefail
data=$(realpath "$1") here=experiments/certificates out=runs/certificates
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
sweep() { # NAME OVERRIDES...
  echo "== $1" >&2
  unipet train -m "${@:2}" "task.data_dir=$data/\${task.name}" launcher=slots launcher.workers=2 runs_dir="$out/$1" < /dev/null
}
minilm="model=minilm seed=0"

first="$minilm task=sst2 task.max_length=64 task.max_train=9600 task.selection=none budget.max_steps=300"
while read -r method rate; do
  sweep first_light method="$method" optim.lr="$rate" $first
done <<'METHODS'
adapter,adamix 4e-3
prefix 5e-4
lora 2e-3
mam,full 2e-4
head_only 1e-1
METHODS

comparison="$minilm task=trec budget=params_0p5 budget.max_steps=120 task.max_length=64 task.max_evaluation=1000 task.selection=none optim.batch_size=16"
precision="$minilm task=trec precision=fp32,bf16 budget=params_0p5 budget.max_steps=50 task.max_length=32 task.max_evaluation=300 task.selection=none optim.batch_size=16"
while read -r method rate; do
  sweep minilm_comparison method="$method" optim.lr="$rate" $comparison
  case "$method" in
    lora | adapter | mam | adamix | prefix_flat) sweep precision method="$method" optim.lr="$rate" $precision ;;
  esac
done <<'METHODS'
adamix 1.6e-2
mam 1e-3
adapter 4e-3
scaled_parallel_adapter 2e-3
lora 2e-3
parallel_adapter 2e-3
adapter_pfeiffer 8e-3
prefix_flat 1.28e-1
head_only 3e-1
METHODS

real="$minilm task.max_length=64 task.selection_size=200 optim.batch_size=16"
while read -r task steps; do
  sweep real_tasks method=lora,prefix,adamix_lora optim.lr=5e-4 task="$task" budget.max_steps="$steps" $real
  sweep real_tasks method=mam optim.lr=2e-4 task="$task" budget.max_steps="$steps" $real
  sweep real_tasks method=head_only optim.lr=1e-2 task="$task" budget.max_steps="$steps" $real
done <<'TASKS'
stsb 200
trec 150
mrpc 120
TASKS

sweep adamix_twin --config-dir experiments/adamix_twin method=twin,adamix,mixture_only,consistency_only,adamix_unshared,twin_wide \
  task=trec seed=1001 optim.lr=5e-3 budget.max_steps=300 model=minilm precision=bf16 task.max_length=64 task.max_evaluation=500 \
  task.selection_size=200 optim.batch_size=8

# AdaMix's, in the small form that each has in its folder.
sweep adamix_fewshot experiment=adamix_fewshot model=minilm task=trec task.shots=4 task.split_seed=1,2 task.max_length=16 \
  task.max_evaluation=60 method=adamix,adapter_pfeiffer optim.lr=4e-3 optim.epochs=2
sweep adamix_ablations --config-dir experiments/adamix experiment=adamix_ablations model=minilm optim=adamw optim.lr=8e-3 \
  optim.batch_size=8 task=trec task.max_length=16 task.max_evaluation=60 task.selection=none budget.max_steps=30 seed=0

# He et al.'s rows on an encoder-decoder of our own, which has learned nothing yet: what is checked does not need it to.
base=$out/encoder_decoder
[ -f $base/training.json ] ||
  python experiments/own_base_models/train_base.py "$data" $base --architecture encoder_decoder --steps 40 --batch-tokens 256
small="debug=small task=dialogsum task.max_source=128 task.max_target=32 task.max_evaluation=8 task.decoding.num_beams=1 task.decoding.max_new_tokens=12
       model=auto model.path=$base model.name=encoder_decoder seed=0"
for table in table3_xsum table4_en_ro table5_xsum table6_xsum figure4_xsum; do
  sweep "unified_view/$table" --config-dir experiments/unified_view experiment=$table $small
done
sweep unified_view/table2 --config-dir experiments/unified_view experiment=table2 debug=small model=minilm seed=42

python $here/certify.py $out $here
