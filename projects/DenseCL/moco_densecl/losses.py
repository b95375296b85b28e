"""Dense correspondence and the dense contrastive loss (Wang et al. 2020, arXiv 2011.09157), as pure functions.

n: images on this rank, D: channels of the backbone's map, C: embedding length, P: positions of the map, K:
negatives of a query.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moco_det.pretrain.moco.losses import info_nce


@torch.no_grad()
def correspondence(query_map: Tensor, key_map: Tensor) -> Tensor:
    """The most similar position of the second view for each one of the first (section 3.3, equation 4).

    Args:
        query_map, key_map: (n, D, P) maps of the backbone, which are compared by their cosine.

    Returns:
        int64 (n, P): positions in the key's map.
    """
    query_map, key_map = F.normalize(query_map, dim=1), F.normalize(key_map, dim=1)
    similarity = torch.einsum("ndp,ndr->npr", query_map, key_map)  # nxPxP
    return similarity.argmax(dim=2)


def matched(keys: Tensor, positions: Tensor) -> Tensor:
    """The keys at the matched positions: (n, C, P) and (n, P) -> (n, C, P)."""
    return keys.gather(2, positions[:, None].expand(-1, keys.shape[1], -1))


def dense_similarities(r: Tensor, t: Tensor, positions: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities of each dense query with its positive and its negatives, a row for each position of each image.

    Args:
        r, t: (n, C, P) unit-length dense queries and dense keys.
        positions: (n, P) of the positives.
        queue: (C, K) unit-length negatives.

    Returns:
        (n*P,) and (n*P, K).
    """
    positive = (r * matched(t, positions)).sum(dim=1).flatten()  # nP
    rows = r.transpose(1, 2).flatten(0, 1)  # nPxC
    return positive, rows @ queue


def dense_loss(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Equation 2: InfoNCE, averaged over positions and images. Arguments as :func:`dense_similarities` returns."""
    return info_nce(positive, negatives, temperature)
