"""Made-up patients of a few kinds, each with treatments and features of its kind, some with nothing known."""

import numpy as np
import pyarrow as pa
from scipy import sparse

from medpipe.recommend.histories import Histories

NUM_TREATMENTS, NUM_FEATURES, NUM_KINDS = 30, 8, 4


def drawn(num_patients: int, seed: int) -> Histories:
    """Every tenth has no treatment, every twentieth no feature either."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(0, NUM_KINDS, num_patients)
    world = np.random.default_rng(0)
    likes, shows = (world.random((NUM_KINDS, width)) ** 4 * 0.7 for width in (NUM_TREATMENTS, NUM_FEATURES))
    had = (draw.random((num_patients, NUM_TREATMENTS)) < likes[kinds]) * (1 + np.log(draw.geometric(0.5, (1, 1))))
    had *= 1 + draw.integers(0, 3, had.shape)
    features = draw.random((num_patients, NUM_FEATURES)) < shows[kinds]
    had[::10] = 0
    features[::20] = False
    names = pa.array([f"p{number:05}" for number in range(num_patients)])
    return Histories(names, *(sparse.csr_matrix(array.astype(np.float32)) for array in (had, features)))
