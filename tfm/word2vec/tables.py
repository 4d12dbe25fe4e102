"""Initial embedding tables of a translation model, taken from word vectors piece by piece."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tfm.data.languages import HAN_AND_KANA
from tfm.params import Tree
from tfm.word2vec.vectors import Vectors

_HAN_OR_KANA = re.compile(f"[{HAN_AND_KANA}]+")
_WORD_START = "▁"  # SentencePiece's first letter of a piece that begins a word.


def initial_tables(
    tables: Tree, vectors: Mapping[str, Vectors], pieces: Mapping[str, Sequence[str]]
) -> tuple[Tree, dict[str, float]]:
    """Replaces the rows of pieces that have a vector by that vector; other rows stay as drawn.

    The vectors of a table are scaled by one factor, so that those used have a mean square of 1/D
    an entry, like a table that ``embeddings.embedding_params`` draws: a norm of about 1.

    If none of the vectors' words begins with SentencePiece's "▁", they are vectors of words, not of
    pieces. Then "▁word" gets the vector of "word", as written or in lower case. A piece without the
    mark is a part of a word and gets none, unless it consists of Han or Kana letters.

    Args:
      tables: name → [V,D], as ``transformer.declare`` names them ("source", "target", "output").
      vectors: name of a table → its vectors; tables without vectors are not changed.
      pieces: name of a table → its V pieces, in the order of their ids.

    Returns:
      The tables, and for each table in ``vectors`` the share of its pieces that have a vector.

    Raises:
      ValueError: a table is unknown, its width is not the vectors', or no piece has a vector.
    """
    tables, coverage = dict(tables), {}
    for name, space in vectors.items():
        if name not in tables:
            raise ValueError(f"initial vectors: no table {name!r}; there are {', '.join(tables)}")
        V, D = tables[name].shape
        if space.table_VD.shape[1] != D:
            raise ValueError(
                f"initial vectors for {name}: width {space.table_VD.shape[1]}, the model's is {D}"
            )
        if len(pieces[name]) != V:
            raise ValueError(f"initial vectors for {name}: {len(pieces[name])} pieces, {V} rows")
        rows = _vector_rows(space, pieces[name])
        found = [(i, row) for i, row in enumerate(rows) if row is not None]
        if not found:
            raise ValueError(
                f"initial vectors for {name}: none of {V:,} pieces has a vector; "
                "train vectors of the run's own pieces: tfm embed train --tokenizer"
            )
        ids, rows = np.array(found).T
        new_ND = space.table_VD[rows]
        new_ND = new_ND / np.sqrt(np.square(new_ND).sum(axis=1).mean())
        tables[name] = tables[name].at[ids].set(new_ND.astype(tables[name].dtype))
        coverage[name] = len(found) / V
    return tables, coverage


def _vector_rows(space: Vectors, pieces: Sequence[str]) -> list[int | None]:
    """Returns the row of each piece's vector, None for a piece without one."""
    if any(word.startswith(_WORD_START) for word in space.words):
        return [space.ids.get(piece) for piece in pieces]
    is_word = [piece.startswith(_WORD_START) or _HAN_OR_KANA.fullmatch(piece) for piece in pieces]
    return [
        space.row(piece.removeprefix(_WORD_START)) if word else None
        for piece, word in zip(pieces, is_word, strict=True)
    ]
