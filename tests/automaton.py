"""A tiny model with a known answer: a random recurrent automaton, and all its sentences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

VOCAB, EOS, BOS, WIDTH = 4, 3, 0, 6


class Automaton:
    """h' = tanh(A h + E[token]), logits = U h', which depend on all tokens written before.

    B sentences differ by their first state. ``step`` is a ``decoding.Step``: it reorders its state
    by ``parents``. The float64 methods know nothing of steps or parents.
    """

    def __init__(self, seed, batch, sharpness=1.5):
        rng = np.random.default_rng(seed)
        self.A, self.E = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=(VOCAB, WIDTH))
        self.U, self.start = (
            sharpness * rng.normal(size=(WIDTH, VOCAB)),
            rng.normal(size=(batch, WIDTH)),
        )

    def state(self, hypotheses):
        return jnp.repeat(jnp.asarray(self.start, jnp.float32)[:, None], hypotheses, axis=1)

    def step(self, tokens_BR, parents_BR, state_BRW):
        state_BRW = jnp.take_along_axis(state_BRW, parents_BR[:, :, None], axis=1)
        A, E, U = (jnp.asarray(x, jnp.float32) for x in (self.A, self.E, self.U))
        state_BRW = jnp.tanh(state_BRW @ A + E[tokens_BR])
        logits_BRV = state_BRW @ U
        return logits_BRV, jax.nn.logsumexp(logits_BRV, axis=-1), state_BRW

    def step_log_probs(self, b, tokens):
        """The log-probabilities [len+1,V] of the next token after each prefix, in sentence b."""
        h, out = self.start[b], []
        for token in (BOS, *tokens):
            h = np.tanh(h @ self.A + self.E[token])
            logits = h @ self.U
            out.append(logits - np.log(np.exp(logits).sum()))
        return np.array(out)

    def log_prob(self, b, tokens):
        """Forced score of a sentence, its eos included."""
        return sum(p[t] for p, t in zip(self.step_log_probs(b, tokens[:-1]), tokens, strict=True))

    def sentences(self, b, limit):
        """Every sentence of at most ``limit`` tokens, and its log-probability."""
        words = [t for t in range(VOCAB) if t != EOS]
        for n in range(limit):
            for body in itertools.product(words, repeat=n):
                tokens = (*body, EOS)
                yield tokens, self.log_prob(b, tokens)

    def greedy(self, b, limit):
        tokens = []
        while len(tokens) < limit - 1:
            tokens.append(int(self.step_log_probs(b, tokens)[-1].argmax()))
            if tokens[-1] == EOS:
                return tuple(tokens)
        return (*tokens, EOS)


def found(hypotheses, b):
    """The sentences of a search's result, best first: [(tokens, log_prob, score)]."""
    out = []
    for tokens, length, log_prob, score in zip(
        *(np.asarray(x)[b] for x in hypotheses), strict=True
    ):
        if length:
            assert np.all(tokens[length:] == 0)
            out.append((tuple(tokens[:length].tolist()), log_prob, score))
    return out
