"""Every config key that moco_det adds to detectron2's: meaning, unit, range, source. The one table of keys.

"official code" is facebookresearch/moco at 3b42c2a (its last self-contained commit).
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping

import yaml
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as _detectron2_get_cfg


def add_moco_config(cfg: CN) -> None:
    """Add moco_det's keys, with their defaults, to a detectron2 config.

    Defaults are MoCo v1 on ImageNet-1k (He et al. 2019, section 3.3 and 4; official code).
    """
    # ---- MODEL.MOCO: the method. ARCH, STEM, NORM and BN_GROUP_SIZE are those of every other method too ----
    cfg.MODEL.MOCO = CN()
    # Encoder: resnet18, resnet34, resnet50, resnet101, resnet152 (torchvision's), or
    # resnext<depth>_<groups>x<width>d such as the paper's resnext50_32x8d (Table 1, "RX50").
    cfg.MODEL.MOCO.ARCH = "resnet50"
    # Its first layers: "imagenet" (7x7 with stride 2, max-pool), or "cifar" (3x3 with stride 1, no max-pool) for
    # images of 32 px, which detectron2's ResNet cannot represent: such an encoder is not converted.
    cfg.MODEL.MOCO.STEM = "imagenet"
    # Length of the embedding after the head (C in Algorithm 1).
    cfg.MODEL.MOCO.DIM = 128
    # Head: False = one linear layer (v1); True = linear, ReLU, linear with the encoder's width hidden (v2).
    cfg.MODEL.MOCO.MLP = False
    # Who makes the keys and where negatives come from (MoCo v1, Figures 2 and 3):
    # "queue": a moving-average encoder; the keys of the last batches (the paper's own).
    # "memory_bank": a bank over the whole data set; entries of it, drawn for each step (InstDisc, Wu et al. 2018).
    # "end_to_end": an encoder that is trained too; the other SOLVER.IMS_PER_BATCH - 1 keys of the global batch.
    cfg.MODEL.MOCO.DICTIONARY = "queue"
    # Negatives of a query (K), for "queue" and "memory_bank". Of the queue: the keys that it holds, from those of
    # a step (SOLVER.IMS_PER_BATCH, with SYMMETRIC twice as many) to the number of images. Of the bank: the entries
    # drawn, from 1 to the number of images.
    cfg.MODEL.MOCO.QUEUE_SIZE = 65536
    # "queue": momentum m of the key encoder, in [0, 1): k <- m k + (1 - m) q after each step. 0: keys by the query
    # encoder's own weights, which does not train (MoCo v1, section 4.1).
    cfg.MODEL.MOCO.MOMENTUM = 0.999
    # "end_to_end": True = one encoder for queries and keys; False = two, as Figure 2a draws it (the text does not
    # say).
    cfg.MODEL.MOCO.SHARED_ENCODER = False
    # "queue", "end_to_end": the loss is the mean over both orders of the two views, each the query of the other.
    # The CIFAR-10 demo of MoCo's authors has it for the queue, and adds the two. A step encodes twice as many
    # queries and keys, and the queue takes the keys of both views. (A bank's key is the image's entry either way.)
    cfg.MODEL.MOCO.SYMMETRIC = False
    # "memory_bank": momentum t of its entries, in [0, 1): entry <- normalise(t entry + (1 - t) q) after each step.
    # InstDisc's code: 0.5.
    cfg.MODEL.MOCO.BANK_MOMENTUM = 0.5
    # "infonce" (MoCo v1, equation 1), or for "memory_bank" "nce": is an entry the query's own or drawn (InstDisc,
    # equations 2 to 8)? Its normalising constant Z is estimated from the first batch and then kept.
    cfg.MODEL.MOCO.LOSS = "infonce"
    # "memory_bank": weight lambda >= 0 of |q - entry|^2, the proximal term of InstDisc (section 3.3); 0: without.
    cfg.MODEL.MOCO.PROXIMAL = 0.0
    # Softmax temperature (tau), > 0. v1: 0.07; v2: 0.2.
    cfg.MODEL.MOCO.TEMPERATURE = 0.07
    # Batch norm of the encoders: "BN" normalises groups of BN_GROUP_SIZE images, which is what the official
    # code's per-GPU batch norm does; "SyncBN" normalises the whole global batch as one group.
    cfg.MODEL.MOCO.NORM = "BN"
    # Images per batch-norm group, independent of the hardware: the paper's 256 images on 8 GPUs are groups of
    # 32. A process holds whole groups, or a group is the images of several processes.
    cfg.MODEL.MOCO.BN_GROUP_SIZE = 32
    # Shuffle the keys over the whole global batch before they are grouped ("shuffling BN", section 3.3).
    cfg.MODEL.MOCO.SHUFFLE_BN = True

    # ---- INPUT.VIEWS: the random views of an image (official code, main_moco.py) --------------------
    cfg.INPUT.VIEWS = CN()
    # "v1": crop, grayscale, colour jitter, flip. "v2" (--aug-plus): crop, jitter, grayscale, blur, flip.
    # "cifar" (the CIFAR-10 demo of MoCo's authors): v2 without blur.
    # "crop_flip": these two alone (classifiers; official code, main_lincls.py).
    # "simclr": v2 with jitter twice as strong (SimCLR, appendix A; SwAV). "byol": the two views differ in blur and
    # solarisation (BYOL, Table 6; MoCo v3; DINO, whose small views it has). Numbers: RECIPES in moco_det/views.py.
    # CROP_SCALE is not part of it: these papers have (0.08, 1.0), MoCo v3 for ResNet-50 (0.2, 1.0), and with small
    # views (0.14, 1.0).
    cfg.INPUT.VIEWS.RECIPE = "v1"
    # Side of a view, in pixels.
    cfg.INPUT.VIEWS.SIZE = 224
    # Smallest and largest share of the image's area that a crop takes, 0 < min <= max <= 1.
    cfg.INPUT.VIEWS.CROP_SCALE = (0.2, 1.0)
    # Smallest and largest sigma of the blur (v1 and crop_flip have none), in pixels of the view; the official
    # values are for 224 px.
    cfg.INPUT.VIEWS.BLUR_SIGMA = (0.1, 2.0)
    # Small views of each image besides the two large ones ("multi-crop", SwAV, section 3.3), for methods that use
    # them; their side in pixels, and the share of the image's area that their crops take. SwAV: 6 of 96 px
    # from (0.05, 0.14), with CROP_SCALE (0.14, 1.0).
    cfg.INPUT.VIEWS.SMALL_CROPS = 0
    cfg.INPUT.VIEWS.SMALL_SIZE = 96
    cfg.INPUT.VIEWS.SMALL_CROP_SCALE = (0.05, 0.14)
    # Where colours, blur and flip of pre-training's views are done, by one code: "workers", image by image on the
    # CPU; "device", for the whole batch where the model is; "auto": on a GPU if the model is on one. The draws are
    # the same; a GPU may round a level differently.
    cfg.INPUT.VIEWS.COLOUR_ON = "auto"
    # Batches that each of DATALOADER.NUM_WORKERS has ready ahead, >= 1: more of them even out a slow disk, for
    # memory.
    cfg.DATALOADER.PREFETCH = 2

    # ---- Semantic segmentation in fine-tuning (MoCo v1, A.5) ----------------------------------------
    # Smallest and largest factor, > 0, by which a training image is scaled before its crop of INPUT.CROP.SIZE.
    cfg.INPUT.RANDOM_SCALE = (0.5, 2.0)
    # Dilation of the two 3x3 convolutions of DilatedFCNHead, in positions of the feature map, >= 1.
    cfg.MODEL.SEM_SEG_HEAD.DILATION = 6

    # ---- DATASETS: unlabelled images -------------------------------------------------------------
    # A folder (searched in all its sub-folders) of images or of tar shards, a pattern of shards such as
    # train-{000000..000147}.tar, or a text file with one path a line; `--images` sets it.
    # Either this or DATASETS.TRAIN (names of registered data sets, labels ignored), not both.
    cfg.DATASETS.IMAGES = ""
    # Data sets of the user's own, registered before a run: rows of (NAME, JSON, IMAGES), (NAME, FOLDER, SPLIT) and
    # (NAME, IMAGES, LABELS, CLASSES), and Python files or modules that register more. The options --coco, --voc,
    # --semantic and --register add to them (moco_det/own_datasets.py).
    cfg.DATASETS.COCO = ()
    cfg.DATASETS.VOC = ()
    cfg.DATASETS.SEMANTIC = ()
    cfg.DATASETS.REGISTER = ()
    # A text file with one path a line: images that pre-training leaves out, such as those of a test set
    # (tools/check_datasets.py --leaks-list writes one); `--exclude` sets it.
    cfg.DATASETS.EXCLUDE = ""
    # Stop when more than this share of the images met so far cannot be read, in [0, 1].
    cfg.DATASETS.MAX_UNREADABLE = 0.01

    # Number of unlabelled images: not to be set, the trainer counts them and tells the model (for a memory bank).
    cfg.DATASETS.NUM_IMAGES = 0

    # Fine-tuning: train on this share of the labelled images, in (0, 1]. Drawn by SEED; a smaller share is part of
    # a larger one. The schedule stays the recipe's: with few labels consider a shorter one.
    cfg.DATASETS.LABEL_FRACTION = 1.0

    # What counts COCO's AP in fine-tuning: "pycocotools" (the official code), or "faster_coco_eval" (the package
    # faster-coco-eval: the same numbers in less time, which shows on sets of thousands of images).
    cfg.TEST.COCO_EVALUATOR = "pycocotools"

    # ---- SOLVER: the schedule, in epochs ---------------------------------------------------------
    # Length of the run in epochs; an epoch is floor(images / IMS_PER_BATCH) steps.
    cfg.SOLVER.EPOCHS = 200
    # Epochs after which EpochMultiStepLR multiplies the learning rate by SOLVER.GAMMA.
    cfg.SOLVER.STEP_EPOCHS = (120, 160)
    # (SOLVER.LR_SCHEDULER_NAME takes "EpochMultiStepLR" (v1) and "EpochCosineLR" (v2) in pre-training, and
    # "CosineLR": with each step, after a warm-up, down to SOLVER.BASE_LR_END.)
    # "CosineLR": epochs over which the learning rate first rises from 0, in [0, EPOCHS).
    cfg.SOLVER.WARMUP_EPOCHS = 0
    # Pre-training: "SGD", or "LARS", whose steps are in proportion to a layer's weights, for batches of thousands
    # (You et al. 2017). LARS leaves biases and batch norm without weight decay and without that proportion.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # "LARS": the trust coefficient eta, > 0.
    cfg.SOLVER.LARS_TRUST = 0.001
    # Arithmetic of the encoders: "float32", "bfloat16", or "float16" with a loss scaler (autocast; the loss and
    # the statistics of batch norm stay in float32). A processor without AVX512, on which bfloat16 would take many
    # times as long, computes in float32 instead.
    cfg.SOLVER.PRECISION = "float32"
    # What follows changes memory and speed, not the algorithm.
    # Micro-batches in which each process takes its images: all keys first, then the queries, one enqueue. Where
    # keys get gradients ("end_to_end"), by a gradient cache: one more forward pass.
    cfg.SOLVER.ACCUMULATE = 1
    # Keep only the input of each residual block and compute the rest anew in the backward pass.
    cfg.SOLVER.ACTIVATION_CHECKPOINTING = False
    # Images and weights in the channels_last memory format.
    cfg.SOLVER.CHANNELS_LAST = True
    # Save a checkpoint every so many epochs, and keep the newest CHECKPOINT_KEEP of them (0 keeps all).
    cfg.SOLVER.CHECKPOINT_EPOCHS = 1
    cfg.SOLVER.CHECKPOINT_KEEP = 3
    # Write a line to the log, metrics.json and TensorBoard every so many steps.
    cfg.SOLVER.LOG_PERIOD = 20

    # ---- CLASSIFY: linear probe, kNN and supervised training on labelled folders (tools/train_classifier.py) --
    cfg.CLASSIFY = CN()
    # The encoder, named as in MODEL.MOCO.ARCH. Empty: that of MODEL.WEIGHTS.
    cfg.CLASSIFY.ARCH = ""
    # True: the encoder is frozen, batch norm included, and a linear classifier is trained on its pooled features
    # (MoCo v1, section 4.1). False: encoder and classifier are trained (supervised training, or fine-tuning).
    cfg.CLASSIFY.FREEZE = True
    # Features that a linear classifier is trained on: "live", of random views, as the paper does; or "cached", of
    # the central view, computed once: seconds instead of hours, and a little less accurate.
    cfg.CLASSIFY.FEATURES = "live"
    # Further learning rates, > 0: for each, one more linear classifier is trained in the same pass, exactly as it
    # would be alone. SOLVER.BASE_LR stays the recipe's own, whose accuracy is the result.
    cfg.CLASSIFY.MORE_LRS = ()
    # Images that batch norm normalises together where the encoder is trained, as in MODEL.MOCO.BN_GROUP_SIZE.
    cfg.CLASSIFY.BN_GROUP_SIZE = 32
    # Measure the accuracy every so many epochs, and after the last.
    cfg.CLASSIFY.PERIOD_EPOCHS = 1
    # Number of classes: not to be set, the folders are counted.
    cfg.CLASSIFY.NUM_CLASSES = 0

    # ---- Fine-tuning: measure the model before its first iteration too, so that curves begin at 0 -----------
    cfg.TEST.EVAL_AT_START = False

    # ---- TEST.KNN: watch pre-training with a kNN classifier (InstDisc's monitor; Figure A.1) --------
    cfg.TEST.KNN = CN()
    # Folder with train/<class>/ and test/<class>/ images; empty: no kNN.
    cfg.TEST.KNN.IMAGES = ""
    # Neighbours that vote (tools/train_classifier.py: 0 = no kNN), and the temperature of their weights
    # exp(similarity / T).
    cfg.TEST.KNN.K = 200
    cfg.TEST.KNN.TEMPERATURE = 0.07
    # What is compared: "pooled" features before the head, or the "embedding" (CIFAR-10 demo of MoCo's authors).
    cfg.TEST.KNN.FEATURES = "pooled"
    # True: the central crop, of 224/256 of the shorter side; False: the whole image, scaled to the size of a view.
    cfg.TEST.KNN.CENTER_CROP = True
    # Evaluate every so many epochs, and before the first.
    cfg.TEST.KNN.PERIOD_EPOCHS = 1


def get_cfg() -> CN:
    """detectron2's defaults plus moco_det's keys, as a fresh config."""
    cfg = _detectron2_get_cfg()
    add_moco_config(cfg)
    return cfg


def known_keys(cfg: CN, prefix: str = "") -> list[str]:
    """All full key names of a config, e.g. ``"MODEL.MOCO.DIM"``."""
    keys = []
    for name, value in cfg.items():
        full = f"{prefix}{name}"
        keys += known_keys(value, full + ".") if isinstance(value, CN) else [full]
    return keys


def merge_config(
    cfg: CN, config_file: str, opts: list[str], overlays: tuple[str | CN, ...] = ()
) -> list[str]:
    """Merge recipe < overlays (YAML files, or nodes) < KEY VALUE pairs into ``cfg``.

    YAML tags never run code here (``allow_unsafe=False``).

    Returns:
        the full names of the keys that were set by any of the three (yacs cannot tell a key that was set
        from a default).

    Raises:
        ValueError: a file is missing, a key is unknown (the nearest known one is named), a value has the
            wrong type, or the pairs are not pairs.
    """
    names = known_keys(cfg)
    set_keys = []
    for path in filter(None, (config_file, *overlays)):
        if not isinstance(path, CN) and not os.path.isfile(path):
            raise ValueError(f"config file {path!r} does not exist (looked in {os.getcwd()!r})")
        loaded = path if isinstance(path, CN) else load_yaml(path)
        keys = known_keys(CN(loaded))
        _refuse_unknown(keys, names, path)
        set_keys += keys
        try:
            cfg.merge_from_other_cfg(CN(loaded))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {error}") from error
    late = [word for word in opts if word.startswith("--")]
    if late:
        raise ValueError(f"the flag {late[0]} stands after a KEY VALUE pair; flags go before the first pair")
    if len(opts) % 2:
        raise ValueError(f"options after the flags must be KEY VALUE pairs; found {len(opts)} words: {opts}")
    _refuse_unknown(opts[0::2], names, "the command line")
    for key, word in zip(opts[0::2], opts[1::2], strict=True):
        _merge_word(cfg, key, word)
    return set_keys + list(opts[0::2])


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word", tuple: "(a, b, …)"}


def _merge_word(cfg: CN, key: str, word: str) -> None:
    """Set a key from the command line; a whole number will do where a number is expected."""
    found = value_of(cfg, key)
    if isinstance(found, float) and re.fullmatch(r"[+-]?\d+", str(word)):
        word = f"{word}.0"
    try:
        cfg.merge_from_list([key, word])
    except (ValueError, AssertionError, KeyError) as error:
        kind = _KINDS.get(type(found), "a value")
        raise ValueError(f"command line: {key} is {word!r}; expected {kind}, such as {found!r}") from error


def value_of(cfg: CN, key: str) -> object:
    """Of a key such as ``"SOLVER.BASE_LR"``."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def load_yaml(path: str) -> dict:
    """A YAML file over its ``_BASE_``, without running its tags.

    Raises:
        ValueError: the file is no YAML of keys and plain values.
    """
    try:
        loaded = CN.load_yaml_with_base(path, allow_unsafe=False)
    # The last three: what stands where keys or a name of a file should.
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} (or its _BASE_): not YAML of plain values: {reason}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: holds {loaded!r:.40}; expected keys and values")
    return loaded


def refuse_what_does_not_apply(
    set_keys: Iterable[str], applies: tuple[str, ...], stage: str, instead: Mapping[str, str]
) -> None:
    """Refuse keys that a stage does not read, which would silently do nothing.

    Args:
        set_keys: what was set, by a recipe or the command line.
        applies: keys, or the beginnings of keys up to a dot, that the stage reads.
        stage: its name in the message, e.g. ``"pre-training"``.
        instead: the stage's own keys for what is meant.

    Raises:
        ValueError: names the first such key and what to do.
    """
    for key in set_keys:
        if not any(key == name or key.startswith(name + ".") for name in applies):
            mend = f"use {instead[key]}" if key in instead else "remove it"
            raise ValueError(f"config key {key} does not apply to {stage}; {mend}")


def _refuse_unknown(keys: list[str], names: list[str], where: str) -> None:
    for key in keys:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0)
            raise ValueError(f"unknown config key {key!r} in {where}; the nearest known key is {near[0]!r}")
