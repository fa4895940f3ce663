"""RoBERTa: BERT's layers under another name."""

from dataclasses import replace

from unipet.sites.bert import BERT

ROBERTA = replace(BERT, name="roberta", model_types=("roberta",))
