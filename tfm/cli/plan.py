"""``tfm plan``."""

from tfm.cli.train import Experiment


def plan(
    experiment: Experiment,
    topology: str,
    epoch_tokens: float = 0.0,
    tries: int = 16,
    decode_length: int = 64,
) -> int:
    """What an experiment needs on hardware one does not have: memory, traffic, time.

    Compiles the real update for it, and the search that translates; nothing is run. Where the
    update does not fit, says what to change, and ends with 1.

    Args:
        experiment: Fields of the experiment file, to be overridden one by one.
        topology: v5e:16x16, v5p:4x4x4, v6e:4x4, v4:2x2x2 (with the extra tfm[tpu]), cpu:8 or gpu:8.
        epoch_tokens: Target tokens of an epoch, to tell its cost in chip-hours.
        tries: Other settings to try, at most, where the given ones do not fit.
        decode_length: Pieces of the sentences that are translated, decode.batch_size at a time on
            every chip; 0 plans no translation.
    """
    from tfm import plan as planning

    made = planning.plan(experiment, topology, tries=tries, decode_length=decode_length)
    print(planning.describe(made, epoch_tokens))
    return 1 if made.refused else 0
