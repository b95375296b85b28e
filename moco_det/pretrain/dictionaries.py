"""The dictionary: who makes the keys, where the negatives come from, who gets gradients (MoCo v1, Figure 2).

==============  ==========================  ===============================  ==========================
mechanism       keys                        negatives of a query             gradients
==============  ==========================  ===============================  ==========================
Queue           moving-average encoder      K keys of the last batches       queries
MemoryBank      the bank's own entries      K entries drawn from the bank    queries
EndToEnd        trained encoder             the other keys of the batch      queries and keys
==============  ==========================  ===============================  ==========================

C: embedding length, K: negatives of a query, N: images of one global batch, n: of this rank's (micro-)batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.grouped_batch_norm import gather, recomputing
from moco_det.pretrain.losses import info_nce, nce
from moco_det.pretrain.momentum import make_key_encoder, momentum_update
from moco_det.seeding import torch_generator


def build_dictionary(cfg) -> "Dictionary":
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
        seed=cfg.SEED,
    )


class Dictionary(nn.Module):
    """What the mechanisms have in common. A step: begin, encode, then compare each micro-batch, then update."""

    # Whether the keys get gradients, so that accumulation takes a gradient cache.
    trains_keys = False
    # Whether the loss is InfoNCE, and so a bound on mutual information.
    is_info_nce = True

    def key_encoder(self, encoder: nn.Module) -> nn.Module | None:
        """The encoder of the keys, made from that of the queries; None: there is no other one."""
        raise NotImplementedError

    def begin(self, model: nn.Module) -> None:
        """What comes before the keys of a step.

        Args:
            model: the MoCo; its two encoders.
        """

    def encode(self, model: nn.Module, batch: dict) -> Tensor:
        """The keys of the global batch, for one order of the views: (N, C), unit-length, the same on all ranks.

        Args:
            model: the MoCo; its ``embed_keys`` and ``encoder_k``.
            batch: of its ``forward``.
        """
        raise NotImplementedError

    def compare(self, q: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """Similarities with the negatives: (n, K).

        Args:
            q: (n, C) queries; keys: (N, C) of the global batch; own: (n,) which of these are the queries' own.
        """
        raise NotImplementedError

    def loss(self, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        """Of similarities (n,) with the own key and (n, K) with the negatives: a scalar."""
        return info_nce(positive, negatives, temperature)

    def update(self, keys: Tensor, queries: Tensor) -> None:
        """End the step.

        Args:
            keys: (N, C) of the global batch, with both orders of the views (2N, C); queries: (n, C) of all
                micro-batches of this rank, with both orders (2n, C).
        """

    def report(self, keys_per_step: int) -> dict[str, Tensor]:
        """Named scalars for the log.

        Args:
            keys_per_step: that :meth:`update` gets.
        """
        return {}


class Queue(Dictionary):
    """A first-in-first-out queue of unit-length keys, saved with the model (MoCo v1, section 3.2).

    It starts with random unit vectors, as the official code does; they are drawn from the run's seed, so the
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
    def share_real(self) -> Tensor:
        """The share of the queue that holds keys of images and not its random start, 0 to 1 (a scalar)."""
        return self.num_real / self.size

    def report(self, keys_per_step: int) -> dict[str, Tensor]:
        """And how many steps ago the oldest key of an image was made; 0 before there is one."""
        return {"queue_real": self.share_real, "queue_age": (self.num_real / keys_per_step).ceil()}

    def key_encoder(self, encoder: nn.Module) -> nn.Module:
        return make_key_encoder(encoder)

    def begin(self, model: nn.Module) -> None:
        momentum_update(model.encoder_k, model.encoder_q, model.momentum)

    @torch.no_grad()
    def encode(self, model: nn.Module, batch: dict) -> Tensor:
        return model.embed_keys(batch)  # NxC

    def compare(self, q: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        return q @ self.negatives()  # nxK

    def negatives(self) -> Tensor:
        """The keys to compare with, CxK: a copy, because the backward pass needs them after the update."""
        return self.keys.clone()

    @torch.no_grad()
    def update(self, keys: Tensor, queries: Tensor | None = None) -> None:
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


class EndToEnd(Dictionary):
    """The keys of the batch itself, with gradients (MoCo v1, Figure 2a). It keeps nothing between steps.

    The paper does not say whether queries and keys share an encoder; its figure draws two.
    """

    trains_keys = True

    def __init__(self, shared_encoder: bool = False):
        super().__init__()
        self.shared_encoder = shared_encoder

    def key_encoder(self, encoder: nn.Module) -> nn.Module | None:
        """A trained copy, or None: the encoder of the queries is that of the keys."""
        return None if self.shared_encoder else make_key_encoder(encoder, trained=True)

    def encode(self, model: nn.Module, batch: dict) -> Tensor:
        return model.embed_keys(batch)  # NxC

    def compare(self, q: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        count = len(keys)
        others = (own[:, None] + torch.arange(1, count, device=own.device)) % count  # nx(N-1)
        return (q @ keys.T).gather(1, others)  # nxK, K = N-1


class MemoryBank(Dictionary):
    """An embedding of every image of the data set, from when it was last a query (InstDisc, Wu et al. 2018).

    The positive of a query is the entry of its own image, so no encoder makes keys, and no key is shuffled. The
    negatives of a step are drawn uniformly and with replacement from all entries, the same for the whole batch
    (InstDisc's code draws K for each query). A step reads K + N entries and changes N, however many there are. An
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
        seed: int = 0,
    ):
        """
        Args:
            negatives: K.
            momentum: t of the update, entry <- normalise(t entry + (1 - t) q).
            use_nce: the loss of InstDisc instead of InfoNCE.
            seed: the run's seed, from which the start and the negatives are drawn.
        """
        super().__init__()
        self.num_negatives, self.momentum, self.use_nce, self.seed = negatives, momentum, use_nce, seed
        self.is_info_nce = not use_nce
        self.register_buffer("entries", random_entries(num_images, dim, seed))  # images x C
        self.register_buffer(
            "seen", torch.zeros(num_images, dtype=torch.bool)
        )  # entries that came from images
        self.register_buffer("num_real", torch.zeros((), dtype=torch.long))  # how many these are
        self.register_buffer("normaliser", torch.zeros(()))  # Z of the NCE loss; 0: not estimated yet
        self.has_normaliser = False

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.has_normaliser = bool(self.normaliser > 0)

    def report(self, keys_per_step: int) -> dict[str, Tensor]:
        return {"bank_real": self.num_real / len(self.seen)}

    def key_encoder(self, encoder: nn.Module) -> None:
        return None

    @torch.no_grad()
    def encode(self, model: nn.Module, batch: dict) -> Tensor:
        """The entries of the batch's images; notes which these are, and draws the negatives of the step."""
        self.index = gather(batch["index"].to(self.entries.device))  # N
        self.negatives = self.rows(self.draw(batch["iteration"]))  # KxC
        if self.use_nce and not self.has_normaliser:
            self.normaliser.copy_(self.estimate_normaliser(model, batch))
            self.has_normaliser = True
        return self.rows(self.index)  # NxC

    def draw(self, iteration: int) -> Tensor:
        """The images whose entries are the negatives of a step: int64 (K,)."""
        generator = torch_generator(self.seed, "negatives", iteration)
        drawn = torch.randint(len(self.entries), (self.num_negatives,), generator=generator)
        return drawn.to(self.entries.device)

    def rows(self, index: Tensor) -> Tensor:
        """Entries in the precision of the loss."""
        return self.entries[index].to(self.normaliser.dtype)

    def estimate_normaliser(self, model: nn.Module, batch: dict) -> Tensor:
        """Z = n/K sum_k exp(v.f_k / tau), the mean over the queries of the global batch (InstDisc, equation 8).

        The queries are embedded once more for it, so that all micro-batches have the same Z.
        """
        parts = batch["query"].chunk(model.accumulate)
        with recomputing():  # batch norm counts these images when they are compared
            q = torch.cat([model.embed(model.encoder_q, model.normalized(part)) for part in parts])  # nxC
        sums = (q @ self.negatives.T / model.temperature).exp().mean(dim=1)  # n
        return len(self.entries) * gather(sums).mean()

    def compare(self, q: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        return q @ self.negatives.T  # nxK

    def loss(self, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        if not self.use_nce:
            return info_nce(positive, negatives, temperature)
        return nce(positive, negatives, temperature, self.normaliser, len(self.entries))

    @torch.no_grad()
    def update(self, keys: Tensor, queries: Tensor) -> None:
        """Move the entries of the batch's images towards their queries.

        An image that a batch holds twice (in place of an unreadable one) gets the last of its queries.

        Args:
            keys: (N, C), the entries before; queries: (n, C) of this rank.
        """
        queries = gather(queries)  # NxC
        moved = F.normalize(self.momentum * keys + (1 - self.momentum) * queries, dim=1)  # NxC
        places = torch.arange(len(keys), device=keys.device)  # N
        last = torch.where(self.index[:, None] == self.index, places, -1).amax(dim=1)  # N
        self.entries.index_copy_(0, self.index, moved[last].to(self.entries.dtype))
        self.num_real += ((last == places) & ~self.seen[self.index]).sum()
        self.seen.index_fill_(0, self.index, True)
        del self.index, self.negatives


def random_entries(count: int, dim: int, seed: int, block: int = 2**16) -> Tensor:
    """Random unit vectors drawn from the seed: float16 (count, C), never held in a larger type as a whole."""
    entries = torch.empty(count, dim, dtype=torch.float16)
    generator = torch_generator(seed, "bank")
    for rows in entries.split(block):
        rows.copy_(F.normalize(torch.randn(rows.shape, generator=generator), dim=1))
    return entries
