#!/usr/bin/env bash
# He et al. 2022, Figure 4: the score against the number of trained parameters. Any further words are overrides.
#   bash experiments/unified_view_figure4/run.sh
#   bash experiments/unified_view_figure4/run.sh debug=small task.max_source=128 task.max_evaluation=8 task.decoding.max_new_tokens=12 task=dialogsum task.data_dir=../shared/data/dialogsum model=auto model.path=runs/own_base_models/encoder_decoder
set -euo pipefail
out=runs/unified_view_figure4
unipet train --config-dir experiments/unified_view experiment=figure4_xsum runs_dir=$out "$@"
unipet train --config-dir experiments/unified_view experiment=figure4_en_ro runs_dir=$out "$@"
unipet report $out --published he2022:figure4
