"""CBOW and skip-gram (Mikolov 2013): a word is known by the company it keeps.

Text is cut into tiles. A tile has T centres, and S = T + 2W words: the centres with W more on
either side. What happens in a tile is dense: matrices [T,S] of weights say which words a centre
looks at, and all its hidden vectors meet the same negative samples in one matrix product (Ji 2016,
"Parallelizing Word2Vec", shares them for the same reason).

Letters of this package: B tiles · T centres of a tile · S its words · I words it reads · G words
it guesses · J negative samples · L depth of the Huffman tree · V vocabulary · D width of a vector ·
M updates on end · R replicas.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from tfm import embeddings
from tfm.params import Param, Tree, zeros
from tfm.word2vec.huffman import Paths


@dataclass(frozen=True)
class Config:
    """How vectors are learned; hashable, so it can be a static argument of ``jit``.

    Attributes:
      method: cbow guesses a word from those around it, skipgram those around it from the word.
      combine: what cbow makes of the words around: their mean or their sum.
      objective: negative sampling (Mikolov 2013b, eq. 4), hierarchical softmax over a Huffman
        tree (§2.1), or the full softmax, for small vocabularies.
      tables: two, one for words as they are read and one for words as they are guessed, or one
        for both. Two are better: see ``declare``.
      width: D.
      window: W, most words on either side; every centre draws 1..W.
      negatives: samples for each word guessed.
      exponent: samples are drawn by count^exponent.
      subsample: words more frequent than this share of the text are thinned out (§2.3); 0 is off.
      min_count: words seen less often are left out of the text.
      epochs: passes over the text.
      learning_rate: at the start; falls linearly to 1/1000 of it. 0 takes 0.035 for skipgram, 0.12
        for cbow with the mean, 0.02 with the sum.
      centres: T of a tile, whose words meet the same samples.
      tiles: B of an update; on a GPU or TPU take hundreds. 0 takes 2 for skipgram, 16 for cbow.
      samples: J, drawn for a tile; their weight makes up for the number, so the expected update is
        that of ``negatives`` fresh ones a word. 0 takes 64 for skipgram, 8 for cbow.
      replicas: R, copies of the tables that learn from different text at the same time, each on a
        device if there are as many. 0 takes 1 for skipgram, 2 for cbow.
      seed: of the first vectors and of every draw.

    Raises:
      ValueError: a number out of its range, or settings that do not go together.
    """

    method: Literal["cbow", "skipgram"] = "skipgram"
    combine: Literal["mean", "sum"] = "mean"
    objective: Literal["negative", "hierarchical", "softmax"] = "negative"
    tables: Literal["two", "one"] = "two"
    width: int = 100
    window: int = 5
    negatives: int = 5
    exponent: float = 0.75
    subsample: float = 1e-3
    min_count: int = 5
    epochs: int = 5
    learning_rate: float = 0.0
    centres: int = 16
    tiles: int = 0
    samples: int = 0
    replicas: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for names, least in (
            (("width", "window", "negatives", "min_count", "epochs", "centres"), 1),
            (("subsample", "learning_rate", "tiles", "samples", "replicas", "seed"), 0),
        ):
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(
                        f"word vectors: {name} {getattr(self, name)} must be at least {least}"
                    )
        if self.tables == "one" and self.objective == "hierarchical":
            raise ValueError(
                "word vectors: objective='hierarchical' guesses nodes of a tree, not words; with "
                "it tables must be 'two'"
            )


def rate(c: Config) -> float:
    """The learning rate to start with.

    The gradient of a mean has 1/pairs in it, which word2vec.c leaves out: without that error it
    needs a higher rate (İrsoy 2021). A sum is some six words long, and needs a lower one.
    """
    usual = {"mean": 0.12, "sum": 0.02}[c.combine] if c.method == "cbow" else 0.035
    return c.learning_rate or usual


def tiles(c: Config) -> int:
    """B: with 16 skipgram, which takes six guesses a centre at one point, learned a little less."""
    return c.tiles or {"skipgram": 2, "cbow": 16}[c.method]


def samples(c: Config) -> int:
    """J: skipgram has some six guesses a centre, cbow one; with 32 it learned a little less."""
    return c.samples or {"skipgram": 64, "cbow": 8}[c.method]


def replicas(c: Config) -> int:
    """R: skipgram keeps to one; with two its vectors lost a sixth of their score on SimLex-999."""
    return c.replicas or {"skipgram": 1, "cbow": 2}[c.method]


class Batch(NamedTuple):
    """One update's text, as ``corpus.batches`` cuts it.

    Attributes:
      words_BS: ids. sentences_BS: the number of each word's sentence; 0 is padding.
      reach_BT: each centre's window, 1..W.
      negatives_BJ: ids drawn for each tile.
      rate: learning rate, [].
    """

    words_BS: jax.Array
    sentences_BS: jax.Array
    reach_BT: jax.Array
    negatives_BJ: jax.Array
    rate: jax.Array


def declare(c: Config, vocab: int) -> Tree:
    """The tables. Inputs start uniform in ±1/2D, outputs at zero, as word2vec.c has them.

    Does one matrix suffice? It learns, but less: on 6.3 M words of English (technical pages, Brown;
    100 wide, 5 epochs, 16 samples, seed 1) Spearman on SimLex-999 / WordSim-353 fell from
    0.12 / 0.36 to 0.05 / 0.28 for skipgram, and from 0.10 / 0.32 to 0.08 / 0.27 for cbow. With one
    table a word's score with itself is its squared length, yet words seldom follow themselves; with
    two, being read and being guessed are free of each other.
    """

    def small(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -0.5 / c.width, 0.5 / c.width)

    tree = {"input": Param((vocab, c.width), ("vocab", "embed"), small)}
    if c.tables == "two":
        tree["output"] = Param((vocab, c.width), ("vocab", "embed"), zeros)
    return tree


def near(c: Config, batch: Batch) -> jax.Array:
    """Which words a centre looks at: [B,T,S] float, 1 within its reach and sentence, not itself.

    With T = 3, W = 1, all in one sentence::

        1 0 1 0 0
        0 1 0 1 0
        0 0 1 0 1
    """
    T, S = batch.reach_BT.shape[1], batch.words_BS.shape[1]
    distance_TS = jnp.abs(jnp.arange(S)[None, :] - jnp.arange(T)[:, None] - c.window)
    centre_BT = centres(c, batch.sentences_BS)
    same_BTS = centre_BT[:, :, None] == batch.sentences_BS[:, None, :]
    reached_BTS = (distance_TS > 0)[None] & (distance_TS[None] <= batch.reach_BT[:, :, None])
    return (same_BTS & reached_BTS & (centre_BT != 0)[:, :, None]).astype(jnp.float32)


def centres(c: Config, x_BS: jax.Array) -> jax.Array:
    """What belongs to a tile's centres: [B,S,...] → the middle [B,T,...]."""
    return x_BS[:, c.window : x_BS.shape[1] - c.window]


def read_ids(c: Config, batch: Batch) -> jax.Array:
    """The rows of the input table a tile reads: all its words for cbow, its centres otherwise."""
    return batch.words_BS if c.method == "cbow" else centres(c, batch.words_BS)


def _guessed(c: Config, batch: Batch) -> jax.Array:
    """The words a tile's centres may have to guess: itself for cbow, its surroundings otherwise."""
    return centres(c, batch.words_BS) if c.method == "cbow" else batch.words_BS


def guess_ids(c: Config, batch: Batch, paths: Paths | None) -> jax.Array:
    """The rows of the output table that belong to the words a tile guesses, [B,G,L].

    The inner nodes on the way to each word, or the word itself and L = 1 where there is no tree.
    """
    guessed_BG = _guessed(c, batch)
    if c.objective == "hierarchical":
        return embeddings.embed(guessed_BG, paths.nodes_VL)
    return guessed_BG[..., None]


def shared_ids(c: Config, batch: Batch, vocab: int) -> jax.Array:
    """The rows that all centres of a tile meet: [B,J] samples, [1,V] all words, or none [B,0]."""
    if c.objective == "negative":
        return batch.negatives_BJ
    return jnp.arange(vocab)[None] if c.objective == "softmax" else batch.negatives_BJ[:, :0]


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """log(1 + eˣ), whose derivative is the sigmoid and costs no more than that."""
    return jnp.logaddexp(x, 0.0)


@softplus.defjvp
def _softplus_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return softplus(primals[0]), jax.nn.sigmoid(primals[0]) * tangents[0]


def loss(
    c: Config,
    batch: Batch,
    paths: Paths | None,
    inputs_BID: jax.Array,
    own_BGLD: jax.Array,
    shared_BJD: jax.Array,
) -> jax.Array:
    """The summed loss of a batch, given the rows it reads and meets.

    Args:
      inputs_BID: rows of ``read_ids``. own_BGLD: rows of ``guess_ids``. shared_BJD: rows of
        ``shared_ids``.

    Returns:
      Natural-log units summed over all guesses, [] float32.
    """
    near_BTS = near(c, batch)
    pairs_BT = near_BTS.sum(axis=-1)
    turns_BGL = jnp.zeros(own_BGLD.shape[:3], jnp.int8)  # all should have happened
    if c.objective == "hierarchical":
        turns_BGL = embeddings.embed(_guessed(c, batch), paths.turns_VL)
    if c.method == "cbow":  # a centre guesses itself
        hidden_BTD = jnp.einsum("bts,bsd->btd", near_BTS, inputs_BID)
        if c.combine == "mean":
            hidden_BTD /= jnp.maximum(pairs_BT, 1.0)[..., None]
        pairs_BT = jnp.minimum(pairs_BT, 1.0)
        scores = (hidden_BTD[:, :, None] * own_BGLD).sum(axis=-1)
        right = pairs_BT[..., None]
    else:  # and here all words near it
        hidden_BTD = inputs_BID
        scores = jnp.einsum("btd,bgld->btgl", hidden_BTD, own_BGLD)
        right, turns_BGL = near_BTS[..., None], turns_BGL[:, None]
    if c.objective == "softmax":
        totals_BT = jax.nn.logsumexp(embeddings.logits(hidden_BTD, shared_BJD[0]), axis=-1)
        return jnp.sum(pairs_BT * totals_BT) - jnp.sum(right * scores)
    yes, no = right * (turns_BGL == 0), right * (turns_BGL == 1)
    total = jnp.sum((yes + no) * softplus(scores) - yes * scores)
    return total + _samples(c, pairs_BT, hidden_BTD, shared_BJD)


def _samples(
    c: Config, pairs_BT: jax.Array, hidden_BTD: jax.Array, shared_BJD: jax.Array
) -> jax.Array:
    """The loss of what should not have happened.

    A sample that happens to be right is wrong all the same, as in Mikolov 2013b, eq. 4 (word2vec.c
    skips it): then the best score is PMI − log(negatives) exactly (Levy & Goldberg 2014).
    """
    scores_BTJ = jnp.einsum("btd,bjd->btj", hidden_BTD, shared_BJD)
    weight = c.negatives / max(shared_BJD.shape[1], 1)
    return weight * jnp.sum(pairs_BT[..., None] * softplus(scores_BTJ))
