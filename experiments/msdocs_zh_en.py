r"""Microsoft product documentation, Chinese → English: a base model on one GPU, 8 minutes.

    tfm train experiments/msdocs_zh_en.py --workdir runs/msdocs-zh-en
    tfm evaluate --model runs/msdocs-zh-en \
        --source corpora/msdocs-zh-en/test.zh.gz --reference corpora/msdocs-zh-en/test.en.gz

Score: not yet run.
"""

from tfm.config import Config, Data, Optimizer, Tokenizer, Train
from tfm.transformer import PRESETS, Execution


def get_config() -> Config:
    folder = "corpora/msdocs-zh-en"
    return Config(
        model=PRESETS["base"],
        execution=Execution(unroll=1),
        tokenizer=Tokenizer(source_size=16_000, target_size=16_000),
        data=Data(
            source="zh",
            target="en",
            train=(f"{folder}/train.zh.gz", f"{folder}/train.en.gz"),
            dev=(f"{folder}/dev.zh.gz", f"{folder}/dev.en.gz"),
            test=(f"{folder}/test.zh.gz", f"{folder}/test.en.gz"),
            rows=128,
            source_length=0,
            target_length=128,
        ),
        optimizer=Optimizer(learning_rate=1e-3, warmup=1000),
        train=Train(
            stop="8m", loss_chunk=4096, validate_every=2000, checkpoint_every=2000, ema=0.999
        ),
    )
