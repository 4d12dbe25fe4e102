"""Tatoeba Chinese → English."""

from tfm.config import Config, Data, Optimizer, Tokenizer, Train
from tfm.transformer import Config as Model


def get_config() -> Config:
    return Config(
        model=Model(d_model=256, heads=4, d_ff=1024, encoder_layers=3, decoder_layers=3),
        tokenizer=Tokenizer(source_size=4000, target_size=4000),
        data=Data(
            source="zh",
            target="en",
            train=("corpora/tatoeba-zh-en/train.zh.gz", "corpora/tatoeba-zh-en/train.en.gz"),
            dev=("corpora/tatoeba-zh-en/dev.zh.gz", "corpora/tatoeba-zh-en/dev.en.gz"),
            test=("corpora/tatoeba-zh-en/test.zh.gz", "corpora/tatoeba-zh-en/test.en.gz"),
            rows=32,
            source_length=0,
            target_length=64,
        ),
        optimizer=Optimizer(learning_rate=1e-3, warmup=400),
        train=Train(stop="20m", log_every=50, validate_every=500, checkpoint_every=500, ema=0.999),
    )
