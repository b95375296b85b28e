"""One order of the two views in a step: keys of the whole global batch first, then the queries by micro-batches.

MoCo has one order, query and key; the symmetric form has both.

n: images on this rank, N: in the global batch, C: embedding length.
"""

import torch
from torch import Tensor

from moco_det.grouped_batch_norm import recomputing, unshuffle


def swapped(batch: dict) -> dict:
    """The batch of a step with the views in the other order."""
    return {**batch, "query": batch["key"], "key": batch["query"], "swapped": True}


class Order:
    """The keys are made at once; each micro-batch of queries is compared with them and has its own gradients."""

    def __init__(self, model, batch: dict):
        """
        Args:
            model: the MoCo.
            batch: of its ``forward``.
        """
        self.images = batch["query"].chunk(model.accumulate)
        self.made = model.dictionary.encode(model, batch)  # NxC
        self.embedded = []

    def micro_batch(self, model, part: int, small: list[Tensor]) -> dict[str, Tensor]:
        """Losses and statistics of a micro-batch.

        Args:
            small: of each small crop, the queries, a part of (n, C). They have the keys of the large one; the
                losses are the mean over all of them, the statistics are those of the large one.
        """
        q = model.embed_queries(self.images[part])  # a part of n x C
        self.embedded.append(q.detach())
        found = model.compare(q, self.made, part, model.accumulate)
        others = [model.compare(z, self.made, part, model.accumulate) for z in small]
        for name in [name for name in found if others and name.startswith("loss")]:
            found[name] = (found[name] + sum(other[name] for other in others)) / (1 + len(others))
        return found

    @property
    def keys(self) -> Tensor:
        """Of the global batch, without gradients: (N, C)."""
        return self.made.detach()

    @property
    def queries(self) -> Tensor:
        """Of all micro-batches so far, without gradients: (n, C) in the end."""
        return torch.cat(self.embedded)


class CachedOrder:
    """Accumulation where the keys are trained too: the gradient cache (Gao et al. 2021, arXiv 2101.06983).

    A query's loss depends on all keys of the global batch, so micro-batches have no losses of their own. But of
    the other micro-batches the gradient of the weights needs only the gradient of the loss with respect to the
    embeddings. So: embed everything without keeping what a backward pass needs, take the gradients of the loss
    down to the embeddings, then embed each micro-batch again and send its part of them into the weights. It costs
    one more forward pass of each encoder.
    """

    def __init__(self, model, batch: dict):
        """
        Args:
            model: the MoCo.
            batch: of its ``forward``.
        """
        shuffled, permutation = model.shuffled_keys(batch)  # nx3xSxS
        self.images = (batch["query"].chunk(model.accumulate), shuffled.chunk(model.accumulate))
        with torch.no_grad(), recomputing():  # batch norm counts these images when they are embedded again
            q = torch.cat([model.embed_queries(part) for part in self.images[0]])  # nxC
            k = torch.cat([model.embed_shuffled(part) for part in self.images[1]])  # nxC
        with torch.enable_grad():
            leaves = q.requires_grad_(), k.requires_grad_()
            keys = unshuffle(k, permutation)  # NxC
            outputs = model.compare(q, keys, part=0, parts=1)
            # Of the keys: summed over what all ranks made of them, see unshuffle.
            gradients = torch.autograd.grad(outputs["loss_contrastive"], leaves)
        self.gradients = [gradient.chunk(model.accumulate) for gradient in gradients]
        self.outputs = {name: value.detach() for name, value in outputs.items()}
        self.queries, self.keys = q.detach(), keys.detach()

    def micro_batch(self, model, part: int, small: list[Tensor]) -> dict[str, Tensor]:
        """The loss and statistics of the whole batch, in each micro-batch; the gradient is that of this one.

        It is multiplied by the number of micro-batches, since a step's loss is the mean of theirs.

        Args:
            small: none.
        """
        assert not small, "check_dictionary refuses small crops here"
        embeddings = model.embed_queries(self.images[0][part]), model.embed_shuffled(self.images[1][part])
        carrier = sum((e * g[part]).sum() for e, g in zip(embeddings, self.gradients, strict=True))
        loss = self.outputs["loss_contrastive"] + model.accumulate * (carrier - carrier.detach())
        return {**self.outputs, "loss_contrastive": loss}
