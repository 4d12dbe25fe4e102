"""A translator's tables begun from word vectors, piece by piece."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfm.params import Tree
from tfm.word2vec.vectors import Vectors


def initial_tables(
    tables: Tree, vectors: Mapping[str, Vectors], pieces: Mapping[str, Sequence[str]]
) -> tuple[Tree, dict[str, float]]:
    """Rows of pieces that have a vector become that vector; the others stay as they were drawn.

    The vectors of a table are scaled by one number, so that those used have a mean square of 1/D
    an entry, as ``embeddings.embedding_params`` starts them: a norm of about 1.

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
        found = [(i, space.ids[p]) for i, p in enumerate(pieces[name]) if p in space.ids]
        if not found:
            raise ValueError(f"initial vectors for {name}: none of {V:,} pieces has a vector")
        rows, ids = np.array(found).T
        new_ND = space.table_VD[ids]
        new_ND = new_ND / np.sqrt(np.square(new_ND).sum(axis=1).mean())
        tables[name] = tables[name].at[rows].set(new_ND.astype(tables[name].dtype))
        coverage[name] = len(found) / V
    return tables, coverage
