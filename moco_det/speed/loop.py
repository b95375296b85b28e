"""The whole loop, from files to an optimizer's step: ours next to other loops, on the same images and settings."""

import contextlib
import copy
import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
import torchvision
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.speed.clock import alternate
from moco_det.speed.images import readable
from moco_det.speed.measurement import Measurement, rates
from moco_det.speed.model import CLASSES, DIM, MOMENTUM, TEMPERATURE, recipe, sgd
from moco_det.speed.options import Options
from moco_det.speed.references import MEAN, STD, PublishedMoCo, open_rgb, published_views
from moco_det.utils.machine import num_cores


class Files(Dataset):
    """Image files by a transform of Pillow images."""

    def __init__(self, paths: Sequence[str], transform: Callable):
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        return self.transform(open_rgb(self.paths[index]))


class TwoViews:
    """Two views of an image by the same transform."""

    def __init__(self, transform: Callable):
        self.transform = transform

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        return self.transform(image), self.transform(image)


def workers(options: Options) -> int:
    """Of each loop: on a CPU the process that trains loads, beside a GPU all cores do."""
    return num_cores() if options.cuda else 0


def batches(paths: Sequence[str], transform: Callable, options: Options) -> Iterator:
    """Batches without end."""
    count = workers(options)
    loader = DataLoader(
        *(Files(paths, transform), options.batch),
        **{"shuffle": True, "drop_last": True, "num_workers": count, "persistent_workers": count > 0},
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


@contextlib.contextmanager
def our_loop(paths: Sequence[str], options: Options, precision: str) -> Iterator[Callable[[], int]]:
    """Steps of the trainer, without hooks."""
    cfg = recipe(options, precision, channels_last=True)
    cfg.DATALOADER.NUM_WORKERS = workers(options)
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, EventStorage(0):
            cfg.OUTPUT_DIR = folder
            trainer = PretrainTrainer(cfg, paths)
            trainer.start_iter = trainer.iter = 0
            trainer.model.train()
            trainer.batches = iter(trainer.loader())

            def step() -> int:
                trainer.run_step()
                trainer.iter += 1
                return options.batch

            yield step
    finally:
        logging.disable(logging.NOTSET)


def stepping(model: nn.Module, loss_of: Callable[[], Tensor], options: Options) -> Callable[[], int]:
    """A step of SGD on what a function computes."""
    optimizer = sgd(model)

    def step() -> int:
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
        return options.batch

    return step


def supervised_loop(paths: Sequence[str], options: Options, precision: str) -> Callable[[], int]:
    """A classifier with the same encoder, on one crop of each image, as torchvision's own recipe trains it."""
    crop = T.RandomResizedCrop(options.size)
    transform = T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
    model = getattr(torchvision.models, options.arch)(num_classes=CLASSES).to(options.device).train()
    labels = torch.arange(options.batch, device=options.device) % CLASSES
    found, dtype = batches(paths, transform, options), getattr(torch, precision)

    def loss_of() -> Tensor:
        images = next(found).to(options.device)
        with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            logits = model(images)
        return F.cross_entropy(logits.float(), labels)

    return stepping(model, loss_of, options)


def published_loop(paths: Sequence[str], options: Options) -> Callable[[], int]:
    """MoCo v2 as the official code and solo-learn write it: torchvision's transforms of Pillow images, float32."""
    queue = max(options.queue - options.queue % options.batch, options.batch)
    model = PublishedMoCo(options.arch, DIM, queue, MOMENTUM, TEMPERATURE).to(options.device).train()
    found = batches(paths, TwoViews(published_views(options.size)), options)
    return stepping(model, lambda: model(*(part.to(options.device) for part in next(found))), options)


def lightly_loop(paths: Sequence[str], options: Options) -> Callable[[], int]:
    """MoCo v2 by lightly's own parts, put together as its documentation does.

    Raises:
        ImportError: lightly, or a package that it needs, is not installed.
    """
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum
    from lightly.transforms import MoCoV2Transform

    resnet = getattr(torchvision.models, options.arch)()
    width = resnet.fc.in_features
    trained = nn.ModuleList(
        [nn.Sequential(*list(resnet.children())[:-1]), MoCoProjectionHead(width, width, DIM)]
    )
    trained = trained.to(options.device).train()
    momentum = copy.deepcopy(trained).requires_grad_(False)
    criterion = NTXentLoss(TEMPERATURE, memory_bank_size=(options.queue, DIM)).to(options.device)
    found = batches(paths, MoCoV2Transform(input_size=options.size), options)

    def loss_of() -> Tensor:
        query, key = (view.to(options.device) for view in next(found))
        for ours, theirs in zip(trained, momentum, strict=True):
            update_momentum(ours, theirs, MOMENTUM)
        q = trained[1](trained[0](query).flatten(1))
        with torch.no_grad():
            key, shuffle = batch_shuffle(key)
            k = batch_unshuffle(momentum[1](momentum[0](key).flatten(1)), shuffle)
        return criterion(q, k)

    return stepping(trained, loss_of, options)


def measure_loop(options: Options) -> Iterator[Measurement]:
    """Images a second of whole loops, of each of ``options.loops``."""
    paths, (_, side), fastest = options.paths, readable(options.paths), options.precisions[-1]
    for arch, size, batch in options.loops:
        batch = min(batch, len(paths))
        # Whole batches, and as many keys as the images allow (at most a quarter of them).
        queue = max(min(options.queue, len(paths) // 4) // batch, 1) * batch
        sizes = dataclasses.replace(options, arch=arch, size=size, batch=batch, queue=queue)
        what = f"MoCo v2 from {side:.0f} px JPEG, {arch}, {sizes.batch} images of {size} px"
        others = {
            f"a supervised loop in {fastest}": (lambda s=sizes: supervised_loop(paths, s, fastest), fastest),
            "torchvision's transforms, the published step": (
                lambda s=sizes: published_loop(paths, s),
                "float32",
            ),
            "lightly's transform, modules and loss": (lambda s=sizes: lightly_loop(paths, s), "float32"),
        }
        for reference, (make, precision) in others.items():
            try:
                theirs = make()
            except ImportError as error:
                print(f"{reference}: left out ({error})", flush=True)
                continue
            with our_loop(paths, sizes, precision) as ours:
                timing = {"rounds": options.rounds, "seconds": options.seconds, "device": options.device}
                yield rates("loop", f"{what}, {precision}", reference, alternate(theirs, ours, **timing))
