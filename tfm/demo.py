"""``tfm demo``: training, scoring and translation on this machine, with the phrasebook."""

import dataclasses
import logging
import time
from pathlib import Path

from tfm import evaluation, inspect, translator
from tfm.config import Config, Data, Decode, Optimizer, Tokenizer, Train
from tfm.data import corpus
from tfm.run_folder import RunFolder
from tfm.terminal import duration
from tfm.training import loop
from tfm.transformer import Architecture

_log = logging.getLogger(__name__)

_SHOWN = 12  # translations that are printed


def get_config() -> Config:
    """A small model, with which a laptop learns the phrasebook in a few minutes."""
    return Config(
        model=Architecture(d_model=192, heads=4, d_ff=768, encoder_layers=2, decoder_layers=2),
        tokenizer=Tokenizer(kind="bpe", source_size=1100, target_size=2000, sentences=40_000),
        data=Data(
            source="zh",
            target="en",
            train=("phrasebook:train",),
            dev=("phrasebook:dev",),
            test=("phrasebook:test",),
            rows=32,
            source_length=0,
            target_length=64,
        ),
        optimizer=Optimizer(learning_rate=3e-3, warmup=150, schedule="cosine", decay_updates=800),
        train=Train(
            stop="800u",
            log_every=50,
            validate_every=200,
            checkpoint_every=200,
            ema=0.99,
            dev_limit=200,
        ),
        decode=Decode(beam_size=2),
    )


def run(folder: Path, minutes: float) -> int:
    """Trains in ``folder``, or resumes there, and prints scores and translations.

    Returns:
      0, or the exit code of a run that a signal stopped.
    """
    experiment = get_config()
    data = experiment.data
    limit = f"{minutes:.2f}".rstrip("0").rstrip(".")
    stop = f"{experiment.train.stop},{limit}m"
    train = dataclasses.replace(experiment.train, stop=stop)
    RunFolder(folder).create()
    print(f"Training a small Chinese→English Transformer in {folder}, {minutes:g} minutes at most.")
    outcome = loop.train(dataclasses.replace(experiment, train=train), folder)
    if outcome.interrupted:
        print(f"Stopped at update {outcome.step:,}; `tfm demo --workdir {folder}` resumes.")
        return outcome.exit_code

    model = translator.load(folder)
    pairs = corpus.open_corpus(data.test, data)
    sources, references = zip(*(pairs[i] for i in range(len(pairs))), strict=True)
    start = time.perf_counter()
    hypotheses = model.translate(sources)
    elapsed = duration(time.perf_counter() - start)
    exact = evaluation.exact_match(hypotheses, references)
    bleu = evaluation.bleu(hypotheses, references, data.target)
    print(f"\n{len(pairs):,} test sentences, none of them in the training set ({elapsed}):")
    print(f"  {exact.value:.1f} % translated exactly as in the phrasebook; {bleu}")
    print("\nSome translations:")
    for i in range(0, len(pairs), max(1, len(pairs) // _SHOWN)):
        wrong = "" if hypotheses[i] == references[i] else f"   (reference: {references[i]})"
        print(f"  {sources[i]}\n    {hypotheses[i]}{wrong}")
    shown = max(range(len(pairs)), key=lambda i: (hypotheses[i] == references[i], len(sources[i])))
    page = RunFolder(folder).report
    trace = inspect.trace(model, sources[shown], references[shown])
    page.write_text(inspect.page(trace), encoding="utf-8")
    print(f"\nEvery step of the model on {sources[shown]}: open {page}")
    print(
        f"""
What to try next:
  echo '{sources[0]}' | tfm translate --model {folder}
  tfm translate --model {folder} --n-best 3 --beam-size 5    # then type Chinese
  tfm inspect '{sources[0]}' --model {folder} -o report.html --language zh
  tfm train experiments/tatoeba_zh_en.py --workdir runs/mine \\
      --data.train my.zh my.en --data.dev dev.zh dev.en      # your own parallel text
"""
    )
    return 0
