r"""Multi30k English → German image captions (Elliott 2016), one GPU, 8 minutes.

    tfm train experiments/multi30k_en_de.py --workdir runs/multi30k-en-de
    tfm evaluate --model runs/multi30k-en-de \
        --source corpora/multi30k-en-de/test2016.en.gz \
        --reference corpora/multi30k-en-de/test2016.de.gz

Score: not yet run. For comparison: 41.02 BLEU on test2016 for Transformer-Tiny (Wu 2021).
"""

from tfm.config import Config, Data, Optimizer, Tokenizer, Train
from tfm.transformer import Architecture


def get_config() -> Config:
    folder = "corpora/multi30k-en-de"
    return Config(
        # Few pairs: a small joint vocabulary, one table for all three uses, strong dropout.
        model=Architecture(
            d_model=256,
            heads=4,
            d_ff=1024,
            encoder_layers=4,
            decoder_layers=4,
            dropout=0.3,
            tie="all",
        ),
        tokenizer=Tokenizer(source_size=8000, joint=True),
        data=Data(
            source="en",
            target="de",
            train=(f"{folder}/train.en.gz", f"{folder}/train.de.gz"),
            dev=(f"{folder}/val.en.gz", f"{folder}/val.de.gz"),
            test=(f"{folder}/test2016.en.gz", f"{folder}/test2016.de.gz"),
            rows=64,
            source_length=0,
            target_length=64,
        ),
        optimizer=Optimizer(
            learning_rate=2e-3, warmup=1000, schedule="cosine", decay_updates=12_000
        ),
        train=Train(stop="8m", validate_every=1000, checkpoint_every=1000, ema=0.999, dev_limit=0),
    )
