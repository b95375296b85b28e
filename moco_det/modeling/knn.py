"""Weighted k-nearest-neighbor classification of features: a fast evaluation of an encoder, without training.

The monitor of Wu et al. 2018 (InstDisc), section 3.4, which MoCo v1 uses in Figure A.1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def nearest(queries: Tensor, references: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and indices of the k nearest references: (M, D), (R, D) -> two (M, k).

    Raises:
        ValueError: k is not between 1 and the number of references.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k is {k}; expected 1 to {len(references)}, the number of reference images")
    references = F.normalize(references, dim=1)
    chunk = max(1, 2**27 // len(references))  # 512 MB of similarities at a time
    found = [(F.normalize(part, dim=1) @ references.T).topk(k) for part in queries.split(chunk)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


@torch.no_grad()
def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor,
    references: Tensor,
    reference_labels: Tensor,
    k: int,
    temperature: float,
) -> float:
    """Percent of queries whose neighbors, weighted by exp(similarity / temperature), vote for their class.

    Args:
        queries: (M, D) features to classify; ``query_labels``: (M,) class numbers.
        references: (R, D) features that vote; ``reference_labels``: (R,) class numbers.
    """
    similarity, index = nearest(queries, references, k)  # Mxk
    votes = similarity.new_zeros(len(queries), int(reference_labels.max()) + 1)
    votes.scatter_add_(1, reference_labels[index], (similarity / temperature).exp())
    return 100.0 * (votes.argmax(1) == query_labels).float().mean().item()
