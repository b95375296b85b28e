"""What embeddings look like beyond accuracy: near for views of an image, spread over the sphere, or collapsed.

M: rows, C: length of an embedding, D: of a feature.
"""

import logging
import math

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from moco_det.engine.hooks import is_due
from moco_det.utils.metric_names import (
    ACCURACY,
    EFFECTIVE_RANK,
    EMBEDDING_STD,
    SIMILARITY_BATCH,
    SIMILARITY_NEGATIVE,
    SIMILARITY_POSITIVE,
)

logger = logging.getLogger(__name__)

# Below these, embeddings or features are the same for all images, whatever the loss says: at a std of 0.1 two
# images have a cosine of 0.99.
LEAST_SPREAD, LEAST_RANK = 0.1, 2.0


def alignment(positive: Tensor) -> Tensor:
    """Mean squared distance of unit-length positive pairs, from their cosines (M,): 0 to 4, lower is nearer.

    Wang & Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", with their alpha of 2.
    """
    return 2 - 2 * positive.mean()


def uniformity(x: Tensor) -> Tensor:
    """Log of the mean of exp(-2 d^2) over the pairs of different rows of x (Wang & Isola 2020, with t = 2).

    Args:
        x: (M, C) unit-length.

    Returns:
        a scalar from -8 to 0; 0: all are the same. For two rows or more; for one it is 0.
    """
    return torch.pdist(x).square().mul(-2).exp().mean().log() if len(x) > 1 else x.new_zeros(())


def spread(x: Tensor) -> Tensor:
    """Standard deviation of an embedding's numbers over the rows, times sqrt(C): 0 collapsed, 1 spread evenly.

    Args:
        x: (M, C) unit-length. (Chen & He 2020, "Exploring Simple Siamese Representation Learning", Figure 2.)
    """
    return x.std(dim=0, correction=0).mean() * math.sqrt(x.shape[1])


@torch.no_grad()
def pair_statistics(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """What the log shows of the embeddings of two views, one pair a row.

    Args:
        a, b: (M, C) unit-length.
    """
    return {
        "alignment": alignment((a * b).sum(dim=1)),
        "uniformity": uniformity(a),
        EMBEDDING_STD: spread(a),
    }


def mutual_information_bound(loss: Tensor, candidates: int) -> Tensor:
    """A lower bound on what two views tell of each other, in nats: log(candidates) - loss, never above the log.

    It holds for InfoNCE, the mean log loss of picking the positive out of the candidates, where the negatives are
    sampled independently of the query (van den Oord et al. 2018, arXiv 1807.03748, appendix A.1). Near its ceiling
    it says little: the information may be far more, and only more candidates could show it.

    Args:
        loss: InfoNCE, not scaled; candidates: the positive and the negatives of a query.
    """
    return math.log(candidates) - loss.detach()


@torch.no_grad()
def contrast_statistics(
    q: Tensor, keys: Tensor, positive: Tensor, negatives: Tensor, info_nce: Tensor | None = None
) -> dict[str, Tensor]:
    """What the log shows of queries, their keys and the negatives.

    Args:
        q: (n, C) queries; keys: (N, C) of the global batch.
        positive: (n,) similarity of each query with its positive key; negatives: (n, K) with the dictionary.
        info_nce: the loss of these similarities, if it is InfoNCE and so bounds the mutual information.

    Returns:
        named scalars. ``similarity_batch``, with the other keys of the batch, should be near
        ``similarity_negative``: if it is well above, the age of a key gives it away.
    """
    others = (q @ keys.T).sum() - positive.sum()
    bound = {}
    if info_nce is not None:
        bound["mutual_information"] = mutual_information_bound(info_nce, 1 + negatives.shape[1])
    return {
        **bound,
        "alignment": alignment(positive),
        "uniformity": uniformity(q),
        EMBEDDING_STD: spread(q),
        ACCURACY: (positive > negatives.amax(dim=1)).float().mean(),  # (K+1)-way
        SIMILARITY_POSITIVE: positive.mean(),
        SIMILARITY_BATCH: others / (len(q) * max(len(keys) - 1, 1)),
        SIMILARITY_NEGATIVE: negatives.mean(),
        "similarity_negative_std": negatives.std(),
    }


def effective_rank(x: Tensor, rows: int = 4096) -> float:
    """exp of the entropy of the normalized singular values: the directions that the rows fill, 1 to min(M, D).

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    Args:
        x: (M, D) features, not all zero.
        rows: of more than so many, as many evenly spaced ones are taken.
    """
    chosen = torch.linspace(0, len(x) - 1, min(rows, len(x))).long()
    values = torch.linalg.svdvals(x[chosen].double())
    fractions = values / values.sum()
    return float(torch.special.entr(fractions).sum().exp())


def describe_collapse(values: dict[str, float]) -> str | None:
    """A sentence if the numbers say that all images look the same to the encoder, else None.

    Args:
        values: of the log: EMBEDDING_STD, EFFECTIVE_RANK; one may be missing.
    """
    found, value = [], values.get(EMBEDDING_STD, 1.0)
    if value < LEAST_SPREAD:
        found.append(f"the embedding std is {value:.3f} (1: even, 0: all the same)")
    if values.get(EFFECTIVE_RANK, LEAST_RANK) < LEAST_RANK:
        found.append(f"the features have an effective rank of {values[EFFECTIVE_RANK]:.2f}")
    if not found:
        return None
    return (
        f"COLLAPSE: {' and '.join(found)}, so the encoder gives nearly the same for every image; if it lasts, the "
        "run learns nothing: lower SOLVER.BASE_LR, and look at sample_views.png whether the views differ"
    )


class CollapseWatch(HookBase):
    """Warns when embeddings collapse, once until they are spread again."""

    def __init__(self, period: int):
        self.period, self.warned = period, False

    def after_step(self):
        if comm.is_main_process() and is_due(self.trainer, self.period):
            latest = self.trainer.storage.latest()
            names = (EMBEDDING_STD, EFFECTIVE_RANK)
            found = describe_collapse({name: latest[name][0] for name in names if name in latest})
            if found and not self.warned:
                logger.warning(found)
            self.warned = bool(found)
