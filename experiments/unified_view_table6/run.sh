#!/usr/bin/env bash
# He et al. 2022, Table 6: transferring the design elements, and the MAM adapter. Any further words are overrides.
#   bash experiments/unified_view_table6/run.sh
#   bash experiments/unified_view_table6/run.sh debug=small task.max_source=128 task.max_evaluation=8 task.decoding.max_new_tokens=12 task=dialogsum task.data_dir=../shared/data/dialogsum model=auto model.path=runs/own_base_models/encoder_decoder
set -euo pipefail
out=runs/unified_view_table6
unipet train --config-dir experiments/unified_view experiment=table6_xsum runs_dir=$out "$@"
unipet train --config-dir experiments/unified_view experiment=table6_en_ro runs_dir=$out "$@"
unipet train --config-dir experiments/unified_view experiment=table6_en_ro method=pa_ffn_r1024,pa_attn_r30_pa_ffn_r512,mam_reparam method.insertions.ffn.position.input=pre_norm runs_dir=$out "$@"
unipet report $out --published he2022:table6
