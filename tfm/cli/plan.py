"""``tfm plan``."""

from typing import Annotated

from tfm.cli.train import Experiment
from tfm.ranges import Range


def plan(
    experiment: Experiment,
    topology: str,
    epoch_tokens: Annotated[float, Range(least=0)] = 0.0,
    tries: Annotated[int, Range(least=0)] = 16,
    decode_length: Annotated[int, Range(0, 65_535, note="0 plans no translation")] = 64,
) -> int:
    """What an experiment needs on hardware that is not here: memory, traffic and time.

    Compiles the real update for that hardware, and the beam search that translates; runs neither.
    If the update does not fit, says what to change and exits with 1.

    Args:
        experiment: Fields of the experiment file, to be overridden one by one.
        topology: v5e:16x16, v5p:4x4x4, v6e:4x4, v4:2x2x2 (with the extra tfm[tpu]), cpu:8 or gpu:8.
        epoch_tokens: Target tokens of an epoch, to print its cost in chip-hours.
        tries: How many other settings to try at most if the given ones do not fit.
        decode_length: Pieces of the sentences to translate, decode.batch_size of them on every chip
            at a time; 0 plans no translation.
    """
    from tfm import plan as planning

    made = planning.plan(experiment, topology, tries=tries, decode_length=decode_length)
    print(planning.describe(made, epoch_tokens))
    return 1 if made.refused else 0
