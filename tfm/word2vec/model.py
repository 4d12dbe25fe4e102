"""CBOW and skip-gram (Mikolov 2013): word vectors are learned by predicting words from context.

Text is split into tiles. A tile has T consecutive centre words and S = T + 2W words in all: the
centres with W more words on either side. Within a tile all operations are dense: matrices [T,S] of
0 and 1 select the context of each centre, and all centres are scored against the same negative
samples in one matrix product (Ji 2016, "Parallelizing Word2Vec", shares samples for the same
reason).

Letters of this package: B tiles · T centres of a tile · S words of a tile · I inputs (rows of the
input table that a tile uses) · G targets (words it may have to predict) · J negative samples ·
L depth of the Huffman tree · V vocabulary · D width of a vector · M updates in a row · R replicas.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tfm import embeddings
from tfm.params import Param, Tree, zeros
from tfm.ranges import SEED, Range
from tfm.word2vec.huffman import Paths

_BY_METHOD = "0 takes the method's own"


@dataclass(frozen=True)
class Config:
    """How vectors are learned; hashable, so that it can be a static argument of ``jit``.

    Attributes:
      method: cbow predicts a word from its context, skipgram the context from the word.
      combine: how cbow combines the vectors of the context: by their mean or their sum.
      objective: negative sampling (Mikolov 2013b, eq. 4), hierarchical softmax over a Huffman
        tree (§2.1), or the full softmax, for small vocabularies.
      tables: two, one for words as inputs and one for words as targets, or one for both. Two are
        better: see ``declare``.
      width: D.
      window: W, the most context words on either side; each centre draws a window from 1..W.
      negatives: negative samples for each prediction.
      exponent: negative samples are drawn in proportion to count^exponent.
      subsample: words above this share of the text are subsampled (§2.3); 0 turns it off.
      min_count: rarer words are left out of the text.
      epochs: passes over the text.
      learning_rate: at the start; falls linearly to 1/1000 of it. 0 means 0.035 for skipgram, 0.12
        for cbow with the mean, 0.02 with the sum.
      centres: T, the centres of a tile, which share their negative samples.
      tiles: B of an update; take hundreds on a GPU or TPU. 0 means 2 for skipgram, 16 for cbow.
      samples: J, negative samples drawn for a tile. They are weighted such that the expected update
        equals that of ``negatives`` fresh samples a prediction. 0 means 64 for skipgram, 8 for
        cbow.
      replicas: R, copies of the tables that learn from different parts of the text in parallel,
        each on a device if there are as many. 0 means 1 for skipgram, 2 for cbow.
      seed: of the initial vectors and of all random draws.

    Raises:
      ValueError: two settings exclude each other. Ranges are checked by ``training.train``.
    """

    method: Literal["cbow", "skipgram"] = "skipgram"
    combine: Literal["mean", "sum"] = "mean"
    objective: Literal["negative", "hierarchical", "softmax"] = "negative"
    tables: Literal["two", "one"] = "two"
    width: Annotated[int, Range(least=1, most=2**16)] = 100
    window: Annotated[int, Range(least=1, most=1000)] = 5
    negatives: Annotated[int, Range(least=1, most=1000)] = 5
    exponent: Annotated[float, Range(least=-2, most=2)] = 0.75
    subsample: Annotated[float, Range(least=0, most=1, note="0 is off")] = 1e-3
    min_count: Annotated[int, Range(least=1)] = 5
    epochs: Annotated[int, Range(least=1)] = 5
    learning_rate: Annotated[float, Range(least=0, note=_BY_METHOD)] = 0.0
    centres: Annotated[int, Range(least=1, most=1000)] = 16
    tiles: Annotated[int, Range(least=0, most=10_000, note=_BY_METHOD)] = 0
    samples: Annotated[int, Range(least=0, most=10_000, note=_BY_METHOD)] = 0
    replicas: Annotated[int, Range(least=0, most=1000, note=_BY_METHOD)] = 0
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        if self.tables == "one" and self.objective == "hierarchical":
            raise ValueError(
                "word vectors: objective='hierarchical' predicts nodes of a tree, not words; with "
                "it tables must be 'two'"
            )


def learning_rate(config: Config) -> float:
    """Returns the initial learning rate, the default for the method if it is 0 in ``config``.

    The gradient of a mean has a factor 1/pairs, which word2vec.c leaves out; the correct gradient
    needs a higher rate (İrsoy 2021). A sum of some six vectors is long and needs a lower one.
    """
    default = {"mean": 0.12, "sum": 0.02}[config.combine] if config.method == "cbow" else 0.035
    return config.learning_rate or default


def tiles(config: Config) -> int:
    """Returns B, the default for the method if it is 0 in ``config``.

    With 16 skipgram, which makes six predictions a centre at one point, learned slightly less.
    """
    return config.tiles or {"skipgram": 2, "cbow": 16}[config.method]


def samples(config: Config) -> int:
    """Returns J, the default for the method if it is 0 in ``config``.

    Skipgram makes some six predictions a centre, cbow one; with 32 skipgram learned slightly less.
    """
    return config.samples or {"skipgram": 64, "cbow": 8}[config.method]


def replicas(config: Config) -> int:
    """Returns R, the default for the method if it is 0 in ``config``.

    Skipgram has one: with two its vectors lost a sixth of their score on SimLex-999.
    """
    return config.replicas or {"skipgram": 1, "cbow": 2}[config.method]


class Batch(NamedTuple):
    """The text of one update, as ``corpus.batches`` makes it.

    Attributes:
      words_BS: ids.
      sentences_BS: number of the sentence of each word; 0 is padding.
      windows_BT: window drawn for each centre, 1..W.
      negatives_BJ: ids of the negative samples of each tile.
      learning_rate: of this update, [].
    """

    words_BS: jax.Array
    sentences_BS: jax.Array
    windows_BT: jax.Array
    negatives_BJ: jax.Array
    learning_rate: jax.Array


def declare(config: Config, vocab: int) -> Tree:
    """Declares the tables. As in word2vec.c, inputs start uniform in ±1/2D and outputs at zero.

    Does one matrix suffice? It learns, but less: on 6.3 M words of English (technical pages, Brown;
    100 wide, 5 epochs, 16 samples, seed 1) Spearman on SimLex-999 / WordSim-353 fell from
    0.12 / 0.36 to 0.05 / 0.28 for skipgram, and from 0.10 / 0.32 to 0.08 / 0.27 for cbow. With one
    table the score of a word with itself is its squared norm, although words seldom follow
    themselves; with two, the vectors of a word as input and as target are independent.
    """

    def small(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -0.5 / config.width, 0.5 / config.width)

    tree = {"input": Param((vocab, config.width), ("vocab", "embed"), small)}
    if config.tables == "two":
        tree["output"] = Param((vocab, config.width), ("vocab", "embed"), zeros)
    return tree


def context_mask(config: Config, batch: Batch) -> jax.Array:
    """Returns which words are the context of a centre: [B,T,S] float32, 0 or 1.

    The context is the centre's window within its sentence, without the centre itself. With T = 3
    and all windows 1, in one sentence::

        1 0 1 0 0
        0 1 0 1 0
        0 0 1 0 1
    """
    T, S = batch.windows_BT.shape[1], batch.words_BS.shape[1]
    distance_TS = jnp.abs(jnp.arange(S)[None, :] - jnp.arange(T)[:, None] - config.window)
    centre_BT = centres(config, batch.sentences_BS)
    same_BTS = centre_BT[:, :, None] == batch.sentences_BS[:, None, :]
    in_window_BTS = (distance_TS > 0)[None] & (distance_TS[None] <= batch.windows_BT[:, :, None])
    return (same_BTS & in_window_BTS & (centre_BT != 0)[:, :, None]).astype(jnp.float32)


def centres(config: Config, x_BS: jax.Array) -> jax.Array:
    """Selects the centres of each tile: [B,S,...] → the middle [B,T,...]."""
    return x_BS[:, config.window : x_BS.shape[1] - config.window]


def input_ids(config: Config, batch: Batch) -> jax.Array:
    """Returns the input rows of each tile, [B,I]: all its words for cbow, else its centres."""
    return batch.words_BS if config.method == "cbow" else centres(config, batch.words_BS)


def _targets(config: Config, batch: Batch) -> jax.Array:
    """Returns the words a tile may have to predict, [B,G]: its centres for cbow, else all."""
    return centres(config, batch.words_BS) if config.method == "cbow" else batch.words_BS


def target_ids(config: Config, batch: Batch, paths: Paths | None) -> jax.Array:
    """Returns the output rows of each target, [B,G,L].

    They are the inner nodes on the path to the word, or the word itself and L = 1 without a tree.
    """
    targets_BG = _targets(config, batch)
    if config.objective == "hierarchical":
        return embeddings.embed(targets_BG, paths.nodes_VL)
    return targets_BG[..., None]


def shared_ids(config: Config, batch: Batch, vocab: int) -> jax.Array:
    """Returns the output rows that all centres of a tile are scored against.

    They are the negative samples [B,J], all words [1,V] for the softmax, or none [B,0].
    """
    if config.objective == "negative":
        return batch.negatives_BJ
    return jnp.arange(vocab)[None] if config.objective == "softmax" else batch.negatives_BJ[:, :0]


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """Returns log(1 + eˣ); its derivative is computed as the sigmoid, which costs less."""
    return jnp.logaddexp(x, 0.0)


@softplus.defjvp
def _softplus_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return softplus(primals[0]), jax.nn.sigmoid(primals[0]) * tangents[0]


def loss(
    config: Config,
    batch: Batch,
    paths: Paths | None,
    inputs_BID: jax.Array,
    targets_BGLD: jax.Array,
    shared_BJD: jax.Array,
) -> jax.Array:
    """Computes the summed loss of a batch from the rows that it uses.

    Args:
      inputs_BID: rows of the input table for ``input_ids``.
      targets_BGLD: rows of the output table for ``target_ids``.
      shared_BJD: rows of the output table for ``shared_ids``.

    Returns:
      Negative log-likelihood in nats, summed over all predictions, [] float32.
    """
    context_BTS = context_mask(config, batch)
    predictions_BT = context_BTS.sum(axis=-1)
    codes_BGL = jnp.zeros(targets_BGLD.shape[:3], jnp.int8)  # Without a tree every label is 1.
    if config.objective == "hierarchical":
        codes_BGL = embeddings.embed(_targets(config, batch), paths.codes_VL)
    if config.method == "cbow":  # The target of a centre is the centre itself.
        hidden_BTD = jnp.einsum("bts,bsd->btd", context_BTS, inputs_BID)
        if config.combine == "mean":
            hidden_BTD /= jnp.maximum(predictions_BT, 1.0)[..., None]
        predictions_BT = jnp.minimum(predictions_BT, 1.0)
        scores = (hidden_BTD[:, :, None] * targets_BGLD).sum(axis=-1)
        is_target = predictions_BT[..., None]
    else:  # The targets of a centre are the words of its context.
        hidden_BTD = inputs_BID
        scores = jnp.einsum("btd,bgld->btgl", hidden_BTD, targets_BGLD)
        is_target, codes_BGL = context_BTS[..., None], codes_BGL[:, None]
    if config.objective == "softmax":
        log_z_BT = jax.nn.logsumexp(embeddings.logits(hidden_BTD, shared_BJD[0]), axis=-1)
        return jnp.sum(predictions_BT * log_z_BT) - jnp.sum(is_target * scores)
    # A code of 0 means label 1, a code of 1 label 0, as in word2vec.c; −1 is padding.
    positive, negative = is_target * (codes_BGL == 0), is_target * (codes_BGL == 1)
    total = jnp.sum((positive + negative) * softplus(scores) - positive * scores)
    return total + _negative_loss(config, predictions_BT, hidden_BTD, shared_BJD)


def _negative_loss(
    config: Config, predictions_BT: jax.Array, hidden_BTD: jax.Array, shared_BJD: jax.Array
) -> jax.Array:
    """Computes the loss of the negative samples.

    A sample that happens to be the target counts as negative all the same, as in Mikolov 2013b,
    eq. 4 (word2vec.c skips it): then the optimal score is exactly PMI − log(negatives) (Levy &
    Goldberg 2014).
    """
    scores_BTJ = jnp.einsum("btd,bjd->btj", hidden_BTD, shared_BJD)
    weight = config.negatives / max(shared_BJD.shape[1], 1)
    return weight * jnp.sum(predictions_BT[..., None] * softplus(scores_BTJ))
