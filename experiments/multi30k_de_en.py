r"""Multi30k German → English: ``multi30k_en_de`` with source and target swapped.

    tfm train experiments/multi30k_de_en.py --workdir runs/multi30k-de-en
    tfm evaluate --model runs/multi30k-de-en \
        --source corpora/multi30k-en-de/test2016.de.gz \
        --reference corpora/multi30k-en-de/test2016.en.gz

Score: not yet run. For comparison: 36.52 BLEU on test2016 (bentrevett/pytorch-seq2seq, with its own
tokenisation).
"""

from pathlib import Path

from tfm import config


def get_config() -> config.Config:
    return config.reverse(config.from_file(Path(__file__).with_name("multi30k_en_de.py")))
