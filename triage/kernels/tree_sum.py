"""The sum of many regression trees over many cells: what a fuser says of every place of an image."""

import numpy as np
from numba import float32, int16, int32, njit, void

from triage.kernels.arrays import ro, rw


@njit(
    void(ro(float32, 2), ro(int16), ro(float32), ro(int32), ro(float32), ro(int32), rw(float32)),
    nogil=True,
    cache=True,
)
def tree_sum(features, feature, threshold, right, value, root, total):
    """Add to `total` the value of the leaf that every cell reaches in every tree.

    features : (cells, names) float32
    feature : (nodes,) int16, column compared at a node, -1 at a leaf
    threshold : (nodes,) float32; a cell goes to the next node where its feature is at most this, else to `right`
    right : (nodes,) int32; value : (nodes,) float32, of leaves
    root : (trees,) int32, first node of every tree; children come after their parent
    total : (cells,) float32, in and out
    """
    for cell in range(features.shape[0]):
        own = features[cell]
        more = np.float32(0.0)
        for tree in range(root.size):
            node = root[tree]
            while feature[node] >= 0:
                node = node + 1 if own[feature[node]] <= threshold[node] else right[node]
            more += value[node]
        total[cell] += more
