#!/usr/bin/env bash
# He et al. 2022, Table 5: composition and scaling at the feed-forward block. Any further words are overrides.
#   bash experiments/unified_view_table5/run.sh
#   bash experiments/unified_view_table5/run.sh debug=small task.max_source=128 task.max_evaluation=8 task.decoding.max_new_tokens=12 task=dialogsum task.data_dir=../shared/data/dialogsum model=auto model.path=runs/own_base_models/encoder_decoder
set -euo pipefail
out=runs/unified_view_table5
unipet train --config-dir experiments/unified_view experiment=table5_xsum runs_dir=$out "$@"
unipet report $out --published he2022:table5
