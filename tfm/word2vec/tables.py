"""A translator's tables begun from word vectors, piece by piece."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tfm.params import Tree
from tfm.word2vec.vectors import Vectors

# Han and Kana: letters of scripts that set no spaces between words.
UNSPACED = "々-〇ぁ-ヿㇰ-ㇿ㐀-䶿一-鿿\uf900-\ufaffｦ-ﾟ\U00020000-\U0003ffff"
_ALL_UNSPACED = re.compile(f"[{UNSPACED}]+")
_MARK = "▁"  # begins the pieces that begin a word


def initial_tables(
    tables: Tree, vectors: Mapping[str, Vectors], pieces: Mapping[str, Sequence[str]]
) -> tuple[Tree, dict[str, float]]:
    """Rows of pieces that have a vector become that vector; the others stay as they were drawn.

    The vectors of a table are scaled by one number, so that those used have a mean square of 1/D
    an entry, as ``embeddings.embedding_params`` starts them: a norm of about 1.

    Vectors among which none begins with SentencePiece's "▁" are taken for those of words: then
    "▁word" starts from "word", as written or in lower case. A piece without the mark is a part of a
    word, which words know nothing of, unless it is of Han or Kana letters.

    Args:
      tables: name → [V,D], as ``transformer.declare`` names them ("source", "target", "output").
      vectors: name of a table → the vectors to start it from; other tables are left alone.
      pieces: name of a table → its V pieces, in the order of their ids.

    Returns:
      The tables, and for each table named in ``vectors`` the share of its pieces that had one.

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
        known = _rows(space, pieces[name])
        found = [(i, row) for i, row in enumerate(known) if row is not None]
        if not found:
            raise ValueError(
                f"initial vectors for {name}: none of {V:,} pieces has a vector; "
                "train vectors of the run's own pieces: tfm embed train --tokenizer"
            )
        rows, ids = np.array(found).T
        new_ND = space.table_VD[ids]
        new_ND = new_ND / np.sqrt(np.square(new_ND).sum(axis=1).mean())
        tables[name] = tables[name].at[rows].set(new_ND.astype(tables[name].dtype))
        coverage[name] = len(found) / V
    return tables, coverage


def _rows(space: Vectors, pieces: Sequence[str]) -> list[int | None]:
    """The row of each piece's vector."""
    if any(word.startswith(_MARK) for word in space.words):
        return [space.ids.get(piece) for piece in pieces]
    whole = (piece.startswith(_MARK) or _ALL_UNSPACED.fullmatch(piece) for piece in pieces)
    return [
        space.row(piece.removeprefix(_MARK)) if is_word else None
        for piece, is_word in zip(pieces, whole, strict=True)
    ]
