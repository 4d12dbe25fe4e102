"""The space of embeddings: nearest neighbours of pieces, and a picture in two dimensions."""

import flax.struct
import numpy as np

from tfm.word2vec.vectors import units


def neighbours(
    ids: np.ndarray, table_VD: np.ndarray, count: int, skip: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """The pieces whose vectors have the largest cosines.

    Args:
      ids: [T] pieces asked about.
      count: C, neighbours each; fewer if the table is smaller.
      skip: rows at the start of the table, of special ids, that are no neighbours.

    Returns:
      Their ids [T,C], nearest first, and cosines [T,C].
    """
    rows_VD = units(table_VD)
    cosines_TV = rows_VD[ids] @ rows_VD.T
    cosines_TV[:, :skip] = -np.inf
    cosines_TV[np.arange(len(ids)), ids] = -np.inf  # no piece is its own neighbour
    count = max(0, min(count, table_VD.shape[0] - skip - 1))
    near_TC = np.argsort(-cosines_TV, axis=1, kind="stable")[:, :count]
    return near_TC, np.take_along_axis(cosines_TV, near_TC, axis=1)


@flax.struct.dataclass
class Picture:
    """Points in the plane.

    Attributes:
      points_P2: coordinates of each point.
      share_2: the share of the points' variance along each of the two axes.
      names: the piece at each point.
      sides: "source" or "target": whose table it comes from.
      own: whether it occurs in the sentence; else it is a neighbour.
    """

    points_P2: np.ndarray
    share_2: np.ndarray
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    sides: tuple[str, ...] = flax.struct.field(pytree_node=False)
    own: tuple[bool, ...] = flax.struct.field(pytree_node=False)


def principal_axes(x_PD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal component analysis (Pearson 1901): the plane of the largest variance.

    Returns:
      Coordinates [P,2], and the share of the variance along each axis [2].
    """
    centred = x_PD - x_PD.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    points, variance = np.zeros((len(x_PD), 2)), np.zeros(2)
    count = min(2, len(s))
    points[:, :count] = (u * s)[:, :count]
    variance[:count] = s[:count] ** 2 / max((s**2).sum(), 1e-12)
    return points, variance
