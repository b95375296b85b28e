"""Parts of a step: momentum update, logits and loss, and the step as a whole.

N: queries, C: embedding length, K: negatives, S: side of a view.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
import torchvision
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file
from moco_det.modeling.momentum_encoder import momentum_update
from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.moco.model import build_encoder
from moco_det.speed.clock import alternate, peak_bytes
from moco_det.speed.measurement import Measurement, amounts, times
from moco_det.speed.options import Options
from moco_det.speed.references import (
    PublishedMoCo,
    float_images,
    published_loss,
    published_momentum_update,
)

DIM, TEMPERATURE, MOMENTUM = 128, 0.2, 0.999
CLASSES = 1000  # of the supervised reference
MOMENTUM_TARGETS = {"cuda": 10.0, "cpu": 1.5}


def measure_momentum(options: Options) -> Iterator[Measurement]:
    """The moving average of the key encoder's weights."""
    query = build_encoder(recipe(options, "float32", True)).to(options.device)
    keys = [copy.deepcopy(query).requires_grad_(False) for _ in range(2)]
    pair = alternate(
        lambda: published_momentum_update(keys[0], query, MOMENTUM),
        lambda: momentum_update(keys[1], query, MOMENTUM),
        rounds=options.rounds,
        seconds=options.seconds,
        device=options.device,
    )
    target = (">=", MOMENTUM_TARGETS[options.device])
    yield times("momentum", f"moving average, {options.arch}", "one tensor at a time", pair, target=target)


def loss_work(ours: bool, queries: int, keys: int, device: str) -> Callable[[], None]:
    """Similarities and loss of a step, forward and backward, down to the embeddings."""
    generator = torch.Generator().manual_seed(0)
    q, k = (F.normalize(torch.randn(queries, DIM, generator=generator), dim=1).to(device) for _ in range(2))
    dictionary = Queue(DIM, keys, seed=0).to(device)
    q.requires_grad_()

    def published() -> Tensor:
        return published_loss(q, k, dictionary.keys, TEMPERATURE)

    def own() -> Tensor:
        positive = torch.einsum("nc,nc->n", q, k)
        return info_nce(positive, q @ dictionary.negatives(), TEMPERATURE)

    def work() -> None:
        q.grad = None
        (own if ours else published)().backward()

    return work


def measure_loss(options: Options) -> Iterator[Measurement]:
    """Similarities with the queue and InfoNCE, forward and backward."""
    sizes = (options.queries, options.queue, options.device)
    what = f"logits and loss, N {options.queries}, K {options.queue}"
    reference = "concatenate, cross-entropy"
    pair = alternate(
        loss_work(False, *sizes),
        loss_work(True, *sizes),
        rounds=options.rounds,
        seconds=options.seconds,
        device=options.device,
    )
    yield times("loss", what, reference, pair)
    theirs, own = (peak_bytes(loss_work, (ours, *sizes), options.device) for ours in (False, True))
    if own is not None:
        yield amounts("loss", f"{what}: peak memory", reference, theirs, own)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions and products of a GPU may round to TF32; on a CPU it changes nothing."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def views_of(options: Options, batch: int) -> dict[str, Tensor]:
    """A batch as the loader gives it, on the device."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, options.size, options.size)
    query, key = (torch.randint(256, shape, dtype=torch.uint8, generator=generator) for _ in range(2))
    place = {"query": query.to(options.device), "key": key.to(options.device)}
    return {**place, "index": torch.arange(batch), "epoch": 0}


def recipe(options: Options, precision: str, channels_last: bool):
    """MoCo v2's config at these sizes."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file("Pretrain/moco_v2_R_50_200ep"), [])
    cfg.MODEL.DEVICE, cfg.MODEL.ENCODER.ARCH = options.device, options.arch
    cfg.MODEL.MOCO.QUEUE_SIZE = max(options.queue - options.queue % options.batch, options.batch)
    cfg.MODEL.ENCODER.BN_GROUP_SIZE = min(cfg.MODEL.ENCODER.BN_GROUP_SIZE, options.batch)
    cfg.INPUT.VIEWS.SIZE, cfg.SOLVER.IMS_PER_BATCH = options.size, options.batch
    cfg.SOLVER.PRECISION, cfg.SOLVER.CHANNELS_LAST = precision, channels_last
    cfg.SEED = 0
    return cfg


def our_step(options: Options, precision: str, channels_last: bool) -> Callable[[], int]:
    """A step of MoCo v2 as the trainer takes it, without the loader."""
    model = build_model(recipe(options, precision, channels_last)).train()
    optimizer = sgd(model)
    batch, done = views_of(options, options.batch), iter(range(2**31))

    def step() -> int:
        optimizer.zero_grad()
        model({**batch, "iteration": next(done)})["loss_contrastive"].backward()
        optimizer.step()
        return options.batch

    return step


def published_step(options: Options) -> Callable[[], int]:
    """A step of the published recipe in float32."""
    queue = max(options.queue - options.queue % options.batch, options.batch)
    model = PublishedMoCo(options.arch, DIM, queue, MOMENTUM, TEMPERATURE).to(options.device).train()
    optimizer = sgd(model)
    batch = views_of(options, options.batch)

    def step() -> int:
        optimizer.zero_grad()
        model(float_images(batch["query"]), float_images(batch["key"])).backward()
        optimizer.step()
        return options.batch

    return step


def supervised_step(options: Options, precision: str, channels_last: bool) -> Callable[[], int]:
    """A step of a classifier of 1000 classes with the same encoder, on one view of each image."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = getattr(torchvision.models, options.arch)(num_classes=CLASSES)
    model = model.to(options.device, memory_format=layout).train()
    optimizer = sgd(model)
    images = views_of(options, options.batch)["query"]
    labels = torch.arange(options.batch, device=options.device) % CLASSES

    def step() -> int:
        optimizer.zero_grad()
        x = float_images(images).contiguous(memory_format=layout)
        dtype = getattr(torch, precision)
        with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            logits = model(x)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        return options.batch

    return step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=0.03, momentum=0.9, weight_decay=1e-4)


def measure_step(options: Options) -> Iterator[Measurement]:
    """MoCo v2's step next to a supervised one at the same settings; at our best, next to the published recipe."""
    what = f"MoCo v2 step, {options.arch}, {options.batch} images of {options.size} px"
    timing = {"rounds": options.rounds, "seconds": options.seconds, "device": options.device}
    for precision in options.precisions:
        settings = (options, precision, True)
        pair = alternate(supervised_step(*settings), our_step(*settings), **timing)
        reference = "a supervised step at the same settings"
        yield times(
            "step", f"{what}, {precision}", reference, pair, unit="ms/image", inverse=True, target=("<=", 1.4)
        )
    fastest = options.precisions[-1]
    best = (options, fastest, True)
    for allowed, target in ((False, 3.0), (True, 2.0)) if options.cuda else ((False, None),):
        with tf32(allowed):
            pair = alternate(published_step(options), our_step(*best), **timing)
        reference = f"the published recipe in float32{' with TF32' if allowed else ''}"
        yield times(
            *("step", f"{what}, {fastest}, channels_last", reference, pair),
            unit="ms/image",
            target=(">=", target) if target else None,
        )
    theirs = peak_bytes(published_step, (options,), options.device)
    own = peak_bytes(our_step, best, options.device)
    if own is not None:
        yield amounts(
            *("step", f"{what}, {fastest}: peak memory", "the published recipe in float32", theirs, own),
            target=("<=", 0.6) if options.cuda else None,
        )
