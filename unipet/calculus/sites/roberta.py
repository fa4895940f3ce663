"""RoBERTa and XLM-R: BERT's layers under other names."""

from dataclasses import replace

from unipet.calculus.sites.bert import BERT

ROBERTA = replace(BERT, name="roberta", model_types=("roberta", "xlm-roberta", "camembert"))
TABLES = (ROBERTA,)
