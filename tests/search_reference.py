"""Every sentence of the automaton with the score that settings of a search give it, in NumPy."""

import dataclasses
import itertools

import numpy as np
from automaton import EOS, VOCAB


@dataclasses.dataclass(frozen=True)
class Rules:
    """Constraints of one sentence, as tuples of tokens."""

    required: tuple = ()
    forbidden: tuple = ()
    prefix: tuple = ()
    joins: tuple = ()  # tokens that go on with a word


def normalised(log_prob, length, decode):
    base = {"power": length, "gnmt": (5 + length) / 6}[decode.length_norm]
    return log_prob / base**decode.length_penalty


def holds(tokens, phrase, joins=()):
    """Whether a phrase occurs and no token that goes on with a word follows it."""
    n = len(phrase)
    return any(
        tokens[i : i + n] == phrase and (i + n == len(tokens) or tokens[i + n] not in joins)
        for i in range(len(tokens) - n + 1)
    )


def excluded(written, token, decode, rules):
    """Whether a setting or a constraint forbids the token after what is written."""
    tokens, n = (*written, token), decode.no_repeat_ngram
    repeats = n and len(tokens) >= n and holds(tokens[:-1], tokens[-n:])
    return (
        token in decode.suppress
        or repeats
        or (token == EOS and len(tokens) < decode.min_length)
        or any(tokens[-len(f) :] == f for f in rules.forbidden)
    )


def gain(written, token, log_prob, decode, rules):
    """What a setting adds to the log-probability of the token."""
    added = (decode.repetition_penalty - 1) * log_prob if token in written else 0.0
    i, prefix = len(written), rules.prefix
    if i < len(prefix) and decode.prefix_bias and written == prefix[:i] and token == prefix[i]:
        added += decode.prefix_bias
    return added


def ranked(model, b, limit, decode, rules=Rules()):
    """[(score, log-probability, tokens)], best first."""
    out = []
    for tokens, log_prob in model.sentences(b, limit):
        if not all(holds(tokens, phrase, rules.joins) for phrase in rules.required):
            continue
        score, lost = log_prob, False
        own = model.step_log_probs(b, tokens[:-1])
        for i, token in enumerate(tokens):
            if i == limit - 1:  # at its limit a sentence is ended
                continue
            if not decode.prefix_bias and i < len(rules.prefix):
                lost |= token != rules.prefix[i]
                continue
            lost |= bool(excluded(tokens[:i], token, decode, rules))
            score += gain(tokens[:i], token, own[i, token], decode, rules)
        if not lost:
            value = normalised(score, len(tokens), decode)
            if decode.coverage_penalty:
                covered = np.minimum(model.attention(b, tokens[:-1]).sum(axis=0), 1.0)
                value += decode.coverage_penalty * np.log(covered).sum()
            out.append((value, log_prob, tokens))
    return sorted(out, reverse=True)


def diverse_groups(model, b, limit, decode):
    """Diverse beam search of one sentence, loop by loop: the finished sentences of each group."""
    size = decode.beam_size // decode.groups
    live = [[((), 0.0)]] * decode.groups
    finished = [[] for _ in live]
    for step in range(1, limit + 1):
        written = np.zeros(VOCAB)
        for g, group in enumerate(live):
            options = []
            for tokens, log_prob in group:
                own = model.step_log_probs(b, tokens)[-1]
                for token in range(VOCAB):
                    if step < limit or token == EOS:
                        loss = 0.0 if step == limit else decode.diversity * written[token]
                        total = log_prob + own[token]
                        options.append((total - loss, (*tokens, token), total))
            best = sorted(options, reverse=True)[: 2 * size]
            if len(finished[g]) < size:
                for _, tokens, total in best[:size]:
                    if tokens[-1] == EOS:
                        finished[g].append((normalised(total, step, decode), tokens))
                finished[g] = sorted(finished[g], reverse=True)[:size]
            live[g] = [(t, total) for _, t, total in best if t[-1] != EOS][:size]
            for tokens, _ in live[g]:
                written[tokens[-1]] += 1
    return finished


def all_distinct(items):
    return all(a != b for a, b in itertools.combinations(items, 2))
