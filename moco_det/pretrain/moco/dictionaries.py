"""The dictionary: who makes the keys, where the negatives come from, who gets gradients (MoCo v1, Figure 2).

==============  ==========================  ===============================  ==========================
mechanism       keys                        negatives of a query             gradients
==============  ==========================  ===============================  ==========================
Queue           moving-average encoder      K keys of the last batches       queries
MemoryBank      the bank's own entries      K entries sampled from the bank   queries
EndToEnd        trained encoder             the other keys of the batch      queries and keys
==============  ==========================  ===============================  ==========================

The step with a queue is ``MoCo.forward``. The other two have a step of their own, which calls MoCo's methods:
``step(model, batch)``, where ``model`` is the MoCo and ``batch`` is what its ``forward`` takes.

C: embedding length, K: negatives of a query, N: images of one global batch, n: of this rank's (micro-)batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.modeling.collectives import gather, local_block, unshuffle
from moco_det.modeling.grouped_batch_norm import recomputing, update_running_statistics
from moco_det.modeling.momentum_encoder import make_key_encoder
from moco_det.pretrain.diagnostics import contrast_statistics
from moco_det.pretrain.method import StepState
from moco_det.pretrain.moco.losses import info_nce, nce
from moco_det.utils.metric_names import BANK_FILL, QUEUE_FILL
from moco_det.utils.seeding import torch_generator


def build_dictionary(cfg) -> "Queue | MemoryBank | EndToEnd":
    """The mechanism that MODEL.MOCO.DICTIONARY names.

    Raises:
        ValueError: a memory bank does not know how many images there are.
    """
    moco = cfg.MODEL.MOCO
    if moco.DICTIONARY == "queue":
        return Queue(moco.DIM, moco.QUEUE_SIZE, cfg.SEED)
    if moco.DICTIONARY == "end_to_end":
        return EndToEnd(moco.SHARED_ENCODER)
    if cfg.DATASETS.NUM_IMAGES < 1:
        raise ValueError(
            f"DATASETS.NUM_IMAGES is {cfg.DATASETS.NUM_IMAGES}; a memory bank has an entry for each image of the "
            "data set: set it to their number before the model is built, as the trainer does"
        )
    return MemoryBank(
        moco.DIM,
        cfg.DATASETS.NUM_IMAGES,
        negatives=moco.QUEUE_SIZE,
        momentum=moco.BANK_MOMENTUM,
        use_nce=moco.LOSS == "nce",
        proximal=moco.PROXIMAL,
        seed=cfg.SEED,
    )


class Queue(nn.Module):
    """A first-in-first-out queue of unit-length keys, saved with the model (MoCo v1, section 3.2).

    It starts with random unit vectors, as the official code does; they are a function of the run's seed, so the
    queue is equal on all ranks from the first step.
    """

    def __init__(self, dim: int, size: int, seed: int):
        super().__init__()
        random_keys = torch.randn(dim, size, generator=torch_generator(seed, "queue"))
        self.register_buffer("keys", F.normalize(random_keys, dim=0))  # CxK
        # Tensors and not numbers, so that they are saved and no step waits for the GPU to read them.
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.register_buffer("num_real", torch.zeros((), dtype=torch.long))  # keys that came from images

    @property
    def size(self) -> int:
        return self.keys.shape[1]

    @property
    def fill(self) -> Tensor:
        """The fraction of the queue that holds keys of images and not its random start, 0 to 1 (a scalar)."""
        return self.num_real / self.size

    def key_encoder(self, encoder: nn.Module) -> nn.Module:
        """The moving-average encoder, made from that of the queries."""
        return make_key_encoder(encoder)

    def negatives(self) -> Tensor:
        """The keys to compare with, CxK: a copy, because the backward pass needs them after they are replaced."""
        return self.keys.clone()

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest N keys by those of the whole global batch.

        Args:
            keys: (N, C), the same on all ranks and in the order of the batch; N <= K, any N: the queue wraps.
        """
        count = keys.shape[0]
        assert count <= self.size, f"{count} keys do not fit a queue of {self.size}"
        slots = (self.pointer + torch.arange(count, device=keys.device)) % self.size
        self.keys.index_copy_(1, slots, keys.T.to(self.keys.dtype))
        self.pointer.copy_((self.pointer + count) % self.size)
        self.num_real.copy_((self.num_real + count).clamp(max=self.size))

    def report(self, keys_per_step: int) -> dict[str, Tensor]:
        """Queue fill, and how many steps ago the oldest key of an image was made (0: none), for the log."""
        return {QUEUE_FILL: self.fill, "queue_age": (self.num_real / keys_per_step).ceil()}


class EndToEnd(nn.Module):
    """The keys of the batch itself, with gradients (MoCo v1, Figure 2a). It keeps nothing between steps.

    The paper does not say whether queries and keys share an encoder; its figure draws two.
    """

    def __init__(self, shared_encoder: bool = False):
        super().__init__()
        self.shared_encoder = shared_encoder

    def key_encoder(self, encoder: nn.Module) -> nn.Module | None:
        """A trained copy, or None: the encoder of the queries is that of the keys."""
        return None if self.shared_encoder else make_key_encoder(encoder, trained=True)

    def step(self, model, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it."""
        if model.accumulate > 1:
            return self.cached_step(model, batch)
        keys = model.embed_keys(encoder_of_keys(model), batch)  # NxC
        pairs = model.positive_pairs(model.embed_queries(batch), keys)
        update_running_statistics(model)
        return model.mean_of_pairs([self.contrast(q, keys, model.temperature) for q, keys in pairs])

    def contrast(self, q: Tensor, keys: Tensor, temperature: float) -> dict[str, Tensor]:
        """Loss and statistics of all queries of this rank, (n, C), with the keys of the global batch, (N, C)."""
        count = len(keys)
        own = local_block(torch.arange(count, device=q.device))  # n, which of the keys are the queries' own
        others = (own[:, None] + torch.arange(1, count, device=q.device)) % count  # nx(N-1)
        positive = torch.einsum("nc,nc->n", q, keys[own])  # n
        negatives = (q @ keys.T).gather(1, others)  # nxK, K = N-1
        loss = info_nce(positive, negatives, temperature)
        return {"loss_contrastive": loss, **contrast_statistics(q, keys, positive, negatives, loss)}

    def cached_step(self, model, batch: dict) -> dict[str, Tensor]:
        """A micro-batch where the keys are trained too: the gradient cache (Gao et al. 2021, arXiv 2101.06983).

        A query's loss depends on all keys of the global batch, so micro-batches have no losses of their own. But
        of the other micro-batches the gradient of the weights needs only the gradient of the loss with respect to
        the embeddings. So: embed everything without keeping what a backward pass needs, take the gradients of the
        loss down to the embeddings, then embed each micro-batch again and send its part of them into the weights.
        It costs one more forward pass of each encoder.

        Returns:
            the loss and statistics of the whole batch, in each micro-batch; the gradient is that of this one,
            multiplied by the number of micro-batches, since a step's loss is the mean of theirs.
        """
        assert "small" not in batch, "check_moco_config refuses local crops here"
        step = batch.get("step", StepState())
        if model.is_first(batch):
            step.caches = [self.cache(model, batch, direction) for direction in model.directions]
        outputs = []
        for embedders_and_images, gradients, whole in step.caches:
            carrier = 0.0
            for (encoder, images), gradient in zip(embedders_and_images, gradients, strict=True):
                embedded = model.embed(encoder, model.micro_batch(images, batch))  # nxC
                carrier = carrier + (embedded * model.micro_batch(gradient, batch)).sum()
            loss = whole["loss_contrastive"] + model.accumulate * (carrier - carrier.detach())
            outputs.append({**whole, "loss_contrastive": loss})
        if model.is_last(batch):
            update_running_statistics(model)
        return model.mean_of_pairs(outputs)

    def cache(self, model, batch: dict, direction) -> tuple:
        """For one :class:`moco_det.pretrain.moco.model.Direction`, what micro-batches need.

        Returns:
            encoder and images, uint8 (n, 3, S, S), of the queries and of the keys that this rank makes; the
            gradients of the loss with respect to their embeddings, twice (n, C); loss and statistics, detached.
        """
        shuffled, permutation = model.shuffled(batch[direction.keys], batch["iteration"], direction.shuffle)
        work = (model.encoder_q, batch[direction.queries]), (encoder_of_keys(model), shuffled)
        with torch.no_grad(), recomputing():  # batch norm counts these images when they are embedded again
            leaves = [
                torch.cat([model.embed(encoder, part) for part in images.chunk(model.accumulate)])
                for encoder, images in work
            ]
        with torch.enable_grad():
            q, k = (leaf.requires_grad_() for leaf in leaves)
            outputs = self.contrast(q, unshuffle(k, permutation), model.temperature)
            # Of the keys: summed over what all ranks made of them, see unshuffle.
            gradients = torch.autograd.grad(outputs["loss_contrastive"], (q, k))
        return work, gradients, {name: value.detach() for name, value in outputs.items()}


def encoder_of_keys(model) -> nn.Module:
    """End-to-end, the encoder of the keys may be that of the queries."""
    return model.encoder_q if model.encoder_k is None else model.encoder_k


class MemoryBank(nn.Module):
    """An embedding of every image of the data set, from when it was last a query (InstDisc, Wu et al. 2018).

    The positive of a query is the entry of its own image, so no encoder makes keys, and no key is shuffled. The
    negatives of a step are sampled uniformly and with replacement from all entries, the same for the whole batch
    (InstDisc's code: K for each query). A step reads K + N entries and changes N, however many there are. An
    entry is float16: 1.28 million of 128 numbers are 0.31 GiB.
    """

    def __init__(
        self,
        dim: int,
        num_images: int,
        *,
        negatives: int,
        momentum: float,
        use_nce: bool = False,
        proximal: float = 0.0,
        seed: int = 0,
    ):
        """
        Args:
            negatives: K.
            momentum: t of the update, entry <- normalize(t entry + (1 - t) q).
            use_nce: the loss of InstDisc instead of InfoNCE.
            proximal: weight of the squared distance between a query and its entry, added to the loss.
            seed: the run's seed, from which the start and the negatives are sampled.
        """
        super().__init__()
        self.num_negatives, self.momentum, self.seed = negatives, momentum, seed
        self.use_nce, self.proximal = use_nce, proximal
        self.register_buffer("entries", random_entries(num_images, dim, seed))  # images x C
        self.register_buffer(
            "seen", torch.zeros(num_images, dtype=torch.bool)
        )  # entries that came from images
        self.register_buffer("num_real", torch.zeros((), dtype=torch.long))  # how many these are
        self.register_buffer("normalizer", torch.zeros(()))  # Z of the NCE loss; 0: not estimated yet
        self.has_normalizer = False

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.has_normalizer = bool(self.normalizer > 0)

    def key_encoder(self, encoder: nn.Module) -> None:
        """There is none."""
        return None

    def step(self, model, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it."""
        step = batch.get("step", StepState())
        if model.is_first(batch):
            step.index = gather(batch["index"].to(self.entries.device))  # N, the images of the global batch
            step.keys = self.rows(step.index)  # NxC
            step.negatives = self.rows(self.draw(batch["iteration"]))  # KxC
            step.queries = []
            if self.use_nce and not self.has_normalizer:
                self.normalizer.copy_(self.estimate_normalizer(model, batch, step.negatives))
                self.has_normalizer = True

        queries = model.embed_queries(batch)  # nxC
        k = model.micro_batch(local_block(step.keys), batch)  # nxC
        outputs = []
        for q in queries:
            positive, negatives = torch.einsum("nc,nc->n", q, k), q @ step.negatives.T  # n, nxK
            if self.use_nce:
                loss = nce(positive, negatives, model.temperature, self.normalizer, len(self.entries))
            else:
                loss = info_nce(positive, negatives, model.temperature)
            found = {"loss_contrastive": loss}
            if self.proximal:
                found["loss_proximal"] = self.proximal * (q - k).square().sum(dim=1).mean()
            bounded = None if self.use_nce else loss
            outputs.append({**found, **contrast_statistics(q, step.keys, positive, negatives, bounded)})
        outputs = {**model.mean_of_pairs(outputs), BANK_FILL: self.num_real / len(self.seen)}

        step.queries.append(queries[0].detach())
        if model.is_last(batch):
            self.update(step.index, step.keys, gather(torch.cat(step.queries)))
            update_running_statistics(model)
        return outputs

    def draw(self, iteration: int) -> Tensor:
        """The images whose entries are the negatives of a step: int64 (K,)."""
        generator = torch_generator(self.seed, "negatives", iteration)
        sampled = torch.randint(len(self.entries), (self.num_negatives,), generator=generator)
        return sampled.to(self.entries.device)

    def rows(self, index: Tensor) -> Tensor:
        """Entries in the precision of the loss."""
        return self.entries[index].to(self.normalizer.dtype)

    @torch.no_grad()
    def estimate_normalizer(self, model, batch: dict, negatives: Tensor) -> Tensor:
        """Z = n/K sum_k exp(v.f_k / tau), the mean over the queries of the global batch (InstDisc, equation 8).

        The queries are embedded once more for it, so that all micro-batches have the same Z.

        Args:
            negatives: (K, C).
        """
        parts = batch["query"].chunk(model.accumulate)
        with recomputing():  # batch norm counts these images when they are compared
            q = torch.cat([model.embed(model.encoder_q, part) for part in parts])  # nxC
        sums = (q @ negatives.T / model.temperature).exp().mean(dim=1)  # n
        return len(self.entries) * gather(sums).mean()

    @torch.no_grad()
    def update(self, index: Tensor, keys: Tensor, queries: Tensor) -> None:
        """Move the entries of the batch's images towards their queries.

        An image that a batch holds twice (in place of an unreadable one) gets the last of its queries.

        Args:
            index: (N,) images of the global batch; keys: (N, C), their entries before; queries: (N, C).
        """
        moved = F.normalize(self.momentum * keys + (1 - self.momentum) * queries, dim=1)  # NxC
        places = torch.arange(len(keys), device=keys.device)  # N
        last = torch.where(index[:, None] == index, places, -1).amax(dim=1)  # N
        self.entries.index_copy_(0, index, moved[last].to(self.entries.dtype))
        self.num_real += ((last == places) & ~self.seen[index]).sum()
        self.seen.index_fill_(0, index, True)


def random_entries(count: int, dim: int, seed: int, block: int = 2**16) -> Tensor:
    """Random unit vectors, a function of the seed: float16 (count, C), never held in a larger type as a whole."""
    entries = torch.empty(count, dim, dtype=torch.float16)
    generator = torch_generator(seed, "bank")
    for rows in entries.split(block):
        rows.copy_(F.normalize(torch.randn(rows.shape, generator=generator), dim=1))
    return entries
