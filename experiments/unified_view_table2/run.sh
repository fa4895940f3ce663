#!/usr/bin/env bash
# He et al. 2022, Table 2: five methods at half a percent, on MNLI and SST-2. Any further words are overrides.
#   bash experiments/unified_view_table2/run.sh
#   bash experiments/unified_view_table2/run.sh debug=small model=minilm 'task.data_dir=../shared/data/${task.name}'
set -euo pipefail
out=runs/unified_view_table2
unipet train --config-dir experiments/unified_view experiment=table2 runs_dir=$out "$@"
unipet report $out --published he2022:table2
