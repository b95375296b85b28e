"""What a mirror does to I, U and V: labels change sides, and a table says where on the new chart a point lies."""

import numpy as np

from moco_densepose.body_tables import read_arrays
from moco_densepose.charts import MIRRORED_CHART, NUM_CHARTS

CELLS = 256


class Symmetry:
    """The mirror of a body's surface.

    Args:
        u, v: NUM_CHARTS x CELLS x CELLS each: of chart I, row ``int(255 V)``, column ``int(255 U)``,
            the new U and V.
    """

    def __init__(self, u: np.ndarray, v: np.ndarray):
        expected = (NUM_CHARTS, CELLS, CELLS)
        if u.shape != expected or v.shape != expected:
            raise ValueError(f"the symmetry tables are {u.shape} and {v.shape}; expected {expected}")
        self._u, self._v = u, v

    def mirror(self, label: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
        """I, U and V of K mirrored points; points of the background (0) stay."""
        chart = np.clip(label - 1, 0, NUM_CHARTS - 1)
        column, row = (np.clip((x * (CELLS - 1)).astype(np.int64), 0, CELLS - 1) for x in (u, v))
        of_body = label > 0
        return (
            MIRRORED_CHART[label],
            np.where(of_body, self._u[chart, row, column], u),
            np.where(of_body, self._v[chart, row, column], v),
        )


def read_symmetry(path: str) -> Symmetry:
    """Read ``UV_symmetry_transforms.mat``, or an .npz with the same names: U_transforms, V_transforms.

    Raises:
        ValueError: the file lacks a table, or one is of another size.
    """
    arrays = read_arrays(path, ("U_transforms", "V_transforms"))
    return Symmetry(*(_stacked(arrays[name]) for name in ("U_transforms", "V_transforms")))


def _stacked(table: np.ndarray) -> np.ndarray:
    """The file has a cell array, 1 x NUM_CHARTS, of CELLS x CELLS; NUM_CHARTS x CELLS x CELLS, float32."""
    if table.dtype == object:
        table = np.stack(list(table.ravel()))
    return table.astype(np.float32)
