"""The table of config keys: what moco_det adds to detectron2's, and those of detectron2's that it has rules for.

One row is everything that the program knows about a key. Refusals, range checks, the config hash, resume, the
agreement of processes and docs/CONFIG.md are derived from the rows (:mod:`moco_det.config.rules`). Keys of
detectron2 without a row are read by fine-tuning, as detectron2 documents them.

Defaults are MoCo v1 on ImageNet-1k. "v1": He et al. 2019 (arXiv 1911.05722); "v2": Chen et al. 2020 (arXiv
2003.04297); "official code": facebookresearch/moco at 3b42c2a, its last self-contained commit.
"""

from moco_det.config.architectures import ARCHS, parse_arch
from moco_det.config.key import (
    BY_EPOCHS,
    CLASSIFY,
    COUNTED,
    EVERY_STAGE,
    FINETUNE,
    HOST,
    IDENTITY,
    LENGTH,
    MACHINE,
    MEASURE,
    METHOD,
    PLACE,
    PRETRAIN,
    WATCHING,
    Allowed,
    Key,
    each,
    matches,
    one_of,
    pair,
    per_channel,
    rising,
    unless,
    when,
    within,
)


def _is_arch(name: str) -> bool:
    try:
        return bool(parse_arch(name))
    except ValueError:
        return False


_EPOCHS = {FINETUNE: "SOLVER.MAX_ITER"}
_NO_EPOCHS = dict.fromkeys(BY_EPOCHS, "SOLVER.EPOCHS")
_DICTIONARY = "MODEL.MOCO.DICTIONARY"
_SCHEDULE = "SOLVER.LR_SCHEDULER_NAME"

ENCODER = (
    Key(
        "MODEL.ENCODER.ARCH",
        "resnet50",
        "Encoder: torchvision's ResNets, or a ResNeXt such as the paper's RX50, resnext50_32x8d.",
        (PRETRAIN,),
        Allowed(ARCHS, _is_arch),
        "v1, section 3.3 and Table 1",
        was="MODEL.MOCO.ARCH",
        instead={CLASSIFY: "CLASSIFY.ARCH", FINETUNE: "MODEL.RESNETS.DEPTH"},
    ),
    Key(
        "MODEL.ENCODER.STEM",
        "imagenet",
        "First layers of the encoder: imagenet is a 7x7 convolution with stride 2 and a max-pool; cifar, "
        "for images of 32 px, a 3x3 convolution with stride 1. detectron2's ResNet cannot represent the "
        "latter, so it is not converted.",
        (PRETRAIN,),
        one_of("imagenet", "cifar"),
        "He et al. 2016, section 4.2",
        was="MODEL.MOCO.STEM",
    ),
    Key(
        "MODEL.ENCODER.NORM",
        "BN",
        "Batch norm of the encoder: BN normalizes groups of MODEL.ENCODER.BN_GROUP_SIZE images, which is "
        "what the official code's per-GPU batch norm does; SyncBN normalizes the whole global batch as one "
        "group.",
        (PRETRAIN,),
        one_of("BN", "SyncBN"),
        "v1, section 3.3",
        was="MODEL.MOCO.NORM",
        instead={FINETUNE: "MODEL.RESNETS.NORM"},
    ),
    Key(
        "MODEL.ENCODER.BN_GROUP_SIZE",
        32,
        "Images per batch-norm group, on any hardware: the paper's 256 images on 8 GPUs are groups of 32. "
        "A process holds whole groups, or a group is the images of several processes.",
        (PRETRAIN,),
        within("[1, inf)"),
        "official code",
        effect=(when("MODEL.ENCODER.NORM", "BN"),),
        was="MODEL.MOCO.BN_GROUP_SIZE",
        instead={CLASSIFY: "CLASSIFY.BN_GROUP_SIZE"},
    ),
)

MOCO = (
    Key(
        "MODEL.MOCO.DIM",
        128,
        "Length of the embedding after the head (C in Algorithm 1).",
        (METHOD,),
        within("[1, inf)"),
        "v1, section 3.3",
    ),
    Key(
        "MODEL.MOCO.MLP",
        False,
        "Head: False is one linear layer (v1); True is linear, ReLU, linear with the encoder's width "
        "hidden (v2).",
        (METHOD,),
        source="v2, section 3",
    ),
    Key(
        _DICTIONARY,
        "queue",
        "Who makes the keys and where negatives come from. queue: a moving-average encoder; the keys of "
        "the last batches. memory_bank: a bank over the whole data set; entries of it, sampled for each "
        "step. end_to_end: an encoder that is trained too; the other SOLVER.IMS_PER_BATCH - 1 keys of the "
        "global batch.",
        (METHOD,),
        one_of("queue", "memory_bank", "end_to_end"),
        "v1, Figures 2 and 3; InstDisc (Wu et al. 2018)",
    ),
    Key(
        "MODEL.MOCO.QUEUE_SIZE",
        65536,
        "Negatives of a query (K). Of the queue: the keys that it holds, from those of a step "
        "(SOLVER.IMS_PER_BATCH, with MODEL.MOCO.SYMMETRIC twice as many) to the number of images. Of the "
        "bank: the entries sampled, at most the number of images.",
        (METHOD,),
        within("[1, inf)"),
        "v1, section 4.1",
        effect=(when(_DICTIONARY, "queue", "memory_bank"),),
    ),
    Key(
        "MODEL.MOCO.MOMENTUM",
        0.999,
        "Momentum m of the key encoder: k <- m k + (1 - m) q after each step. 0: keys by the query "
        "encoder's own weights, which does not train (v1, section 4.1).",
        (METHOD,),
        within("[0, 1)"),
        "v1, section 3.3",
        effect=(when(_DICTIONARY, "queue"),),
    ),
    Key(
        "MODEL.MOCO.SHARED_ENCODER",
        False,
        "True: one encoder for queries and keys; False: two, as Figure 2a draws it (the text does not say).",
        (METHOD,),
        source="v1, Figure 2a",
        effect=(when(_DICTIONARY, "end_to_end"),),
        strict=True,
    ),
    Key(
        "MODEL.MOCO.SYMMETRIC",
        False,
        "The loss is the mean over both orders of the two views, each the query of the other; the authors' "
        "demo adds the two. A step encodes twice as many queries and keys, and the queue takes the keys of "
        "both views. The keys of a memory bank are entries of images and not of views, so it has no other "
        "order.",
        (METHOD,),
        source="CIFAR-10 demo of MoCo's authors",
        effect=(when(_DICTIONARY, "queue", "end_to_end"),),
        strict=True,
    ),
    Key(
        "MODEL.MOCO.BANK_MOMENTUM",
        0.5,
        "Momentum t of the bank's entries: entry <- normalize(t entry + (1 - t) q) after each step.",
        (METHOD,),
        within("[0, 1)"),
        "InstDisc's code",
        effect=(when(_DICTIONARY, "memory_bank"),),
    ),
    Key(
        "MODEL.MOCO.LOSS",
        "infonce",
        "infonce (v1, equation 1), or for the memory bank nce: is an entry the query's own or sampled "
        "(InstDisc, equations 2 to 8)? Its normalizing constant Z is estimated from the first batch and "
        "then kept.",
        (METHOD,),
        one_of("infonce", "nce"),
        "v1, equation 1",
        effect=(when(_DICTIONARY, "memory_bank"),),
        strict=True,
    ),
    Key(
        "MODEL.MOCO.PROXIMAL",
        0.0,
        "Weight lambda of |q - entry|^2, the proximal term; 0: without.",
        (METHOD,),
        within("[0, inf)"),
        "InstDisc, section 3.3",
        effect=(when(_DICTIONARY, "memory_bank"),),
        strict=True,
    ),
    Key(
        "MODEL.MOCO.TEMPERATURE",
        0.07,
        "Softmax temperature tau. v1: 0.07; v2: 0.2.",
        (METHOD,),
        within("(0, inf)"),
        "v1, section 3.3; v2, Table 1",
    ),
    Key(
        "MODEL.MOCO.SHUFFLE_BN",
        True,
        "Shuffle the keys over the whole global batch before they are grouped (shuffling BN).",
        (METHOD,),
        source="v1, section 3.3",
        effect=(when(_DICTIONARY, "queue", "end_to_end"),),
    ),
)

_LIVE = unless("CLASSIFY.FEATURES", "cached")
_MULTI_CROP = unless("INPUT.VIEWS.SMALL_CROPS", 0)
_GROUP = "SwAV (Caron et al. 2020), section 3.3"
VIEWS = (
    Key(
        "INPUT.VIEWS.RECIPE",
        "v1",
        "Random views. v1: crop, grayscale, color jitter, flip. v2 (--aug-plus): crop, jitter, grayscale, "
        "blur, flip. cifar: v2 without blur. crop_flip: these two alone (classifiers). simclr: v2 with "
        "jitter twice as strong (also SwAV's). byol: the two views differ in blur and solarization (also "
        "MoCo v3's and DINO's). The numbers are RECIPES in moco_det/data/views.py; INPUT.VIEWS.CROP_SCALE is "
        "not part of it.",
        BY_EPOCHS,
        one_of("v1", "v2", "cifar", "crop_flip", "simclr", "byol"),
        "official code, main_moco.py and main_lincls.py; SimCLR, appendix A; BYOL, Table 6",
        effect=(_LIVE,),
    ),
    Key(
        "INPUT.VIEWS.SIZE",
        224,
        "Side of a view, in pixels.",
        BY_EPOCHS,
        within("[1, inf)"),
        "official code",
        instead={FINETUNE: "INPUT.MIN_SIZE_TRAIN"},
    ),
    Key(
        "INPUT.VIEWS.CROP_SCALE",
        (0.2, 1.0),
        "Smallest and largest fraction of the image's area that a crop takes. SimCLR and BYOL have (0.08, "
        "1.0), MoCo v3 for ResNet-50 (0.2, 1.0), and methods with local crops (0.14, 1.0).",
        BY_EPOCHS,
        pair("(0, 1]"),
        "official code",
        effect=(_LIVE,),
    ),
    Key(
        "INPUT.VIEWS.BLUR_SIGMA",
        (0.1, 2.0),
        "Smallest and largest sigma of the blur, in pixels of the view; the official values are for 224 px.",
        (PRETRAIN,),
        pair("[0, inf)"),
        "official code",
        effect=(when("INPUT.VIEWS.RECIPE", "v2", "simclr", "byol"),),
    ),
    Key(
        "INPUT.VIEWS.SMALL_CROPS",
        0,
        "Local crops of each image besides the two global ones (multi-crop), for methods that use them. "
        "SwAV: 6.",
        (PRETRAIN,),
        within("[0, inf)"),
        _GROUP,
    ),
    Key(
        "INPUT.VIEWS.SMALL_SIZE",
        96,
        "Side of a local crop, in pixels.",
        (PRETRAIN,),
        within("[1, inf)"),
        _GROUP,
        effect=(_MULTI_CROP,),
    ),
    Key(
        "INPUT.VIEWS.SMALL_CROP_SCALE",
        (0.05, 0.14),
        "Smallest and largest fraction of the image's area that a local crop takes.",
        (PRETRAIN,),
        pair("(0, 1]"),
        _GROUP,
        effect=(_MULTI_CROP,),
    ),
    Key(
        "INPUT.VIEWS.CHANNEL_DROPOUT",
        0.0,
        "Probability with which each channel of a view is replaced by its mean, so that no channel alone "
        "can tell two views of an image; never all of them.",
        (PRETRAIN,),
        within("[0, 1)"),
    ),
    Key(
        "INPUT.VIEWS.AUGMENT_ON",
        "auto",
        "Where the photometric augmentation, blur and flip of the views are done, by one code: workers, "
        "image by image on the CPU; device, for the whole batch where the model is; auto, on a GPU if the "
        "model is on one. The random numbers are the same; a GPU may round a pixel value differently.",
        (PRETRAIN,),
        one_of("auto", "workers", "device"),
        kind=MACHINE,
        was="INPUT.VIEWS.COLOUR_ON",
    ),
    Key(
        "INPUT.DECODE",
        "exact",
        "How JPEG files are decoded for views: exact; or fast, by the package simplejpeg, with quicker arithmetic "
        "and at 1/2, 1/4 or 1/8 of their size where each crop keeps the pixels of its view. The same crops are "
        "sampled; their pixel values differ slightly (docs/PERFORMANCE.md).",
        (PRETRAIN,),
        one_of("exact", "fast"),
        effect=(when("INPUT.CHANNELS", 3), when("INPUT.RANGE", ())),
    ),
    Key(
        "DATALOADER.PREFETCH",
        2,
        "Batches that each of DATALOADER.NUM_WORKERS has ready ahead; more of them even out a slow disk, "
        "for memory.",
        (PRETRAIN,),
        within("[1, inf)"),
        kind=PLACE,
        effect=(unless("DATALOADER.NUM_WORKERS", 0),),
    ),
)

DATA = (
    Key(
        "DATASETS.IMAGES",
        "",
        "Unlabeled images: a folder (searched in all its subfolders) of images or of tar shards, a pattern "
        "of shards such as train-{000000..000147}.tar, or a text file with one path per line; --images "
        "sets it. Either this or DATASETS.TRAIN (names of registered data sets, labels ignored). For "
        "classifiers a folder with train/<class>/ and val/<class>/ (or test/<class>/).",
        BY_EPOCHS,
        kind=PLACE,
        instead={FINETUNE: "DATASETS.TRAIN"},
        shown=True,
    ),
    Key(
        "DATASETS.EXCLUDE",
        "",
        "A text file with one path per line: images that are left out, such as those of a test set "
        "(tools/check_datasets.py --leaks-list writes one); --exclude sets it.",
        (PRETRAIN,),
    ),
    *(
        Key(
            f"DATASETS.{name}",
            (),
            f"Data sets of your own, {layout}: rows of {row}, registered before the run; --{name.lower()} adds to "
            "them.",
            (PRETRAIN, FINETUNE),
            kind=PLACE,
        )
        for name, layout, row in (
            ("COCO", "in COCO's format", "(NAME, JSON, IMAGES)"),
            ("VOC", "in VOC's layout", "(NAME, FOLDER, SPLIT)"),
            ("SEMANTIC", "with label images", "(NAME, IMAGES, LABELS, CLASSES)"),
        )
    ),
    Key(
        "DATASETS.REGISTER",
        (),
        "Python files or modules that are run before the run and register data sets as detectron2 documents; "
        "--register adds to them.",
        (PRETRAIN, FINETUNE),
        kind=PLACE,
    ),
    Key(
        "DATASETS.MAX_UNREADABLE",
        0.01,
        "Stop when more than this fraction of the images cannot be read, each counted once: in pre-training of "
        "those met so far, from 100 on; in fine-tuning of the training set.",
        (PRETRAIN, FINETUNE),
        within("[0, 1]"),
        kind=WATCHING,
    ),
    Key(
        "DATASETS.NUM_IMAGES",
        0,
        "Number of unlabeled images: the trainer counts them and tells the model (for a memory bank).",
        (),
        kind=COUNTED,
    ),
    Key(
        "DATASETS.LABEL_FRACTION",
        1.0,
        "Train on this fraction of the labeled images, sampled by SEED; a smaller fraction is part of a "
        "larger one. The schedule stays the recipe's: with few labels consider a shorter one.",
        (FINETUNE,),
        within("(0, 1]"),
    ),
    Key(
        "INPUT.CHANNELS",
        3,
        "Channels of the images, 1 to 16. Files with others are refused, but gray ones fill three channels. "
        "docs/OTHER_IMAGES.md shows the way from images of 4 bands to a detector.",
        EVERY_STAGE,
        within("[1, 16]"),
    ),
    Key(
        "INPUT.RANGE",
        (),
        "The value of a file that becomes 0 and the one that becomes 255, on the scale of MODEL.PIXEL_MEAN: two "
        "numbers for all channels, or two for each in turn; values beyond are clipped. Empty: 0 and 255 for "
        "8 bits, 0 and 65535 for 16.",
        EVERY_STAGE,
        each("(-inf, inf)"),
    ),
    Key(
        "INPUT.SHOWN_CHANNELS",
        (0, 1, 2),
        "Channels that sample_views.png and the report show as red, green and blue, counted from 0.",
        (PRETRAIN, FINETUNE),
        Allowed("three channels", lambda value: len(value) == 3 and min(value) >= 0),
        kind=WATCHING,
    ),
    Key(
        "INPUT.RANDOM_SCALE",
        (0.5, 2.0),
        "Semantic segmentation: smallest and largest factor by which a training image is scaled before its "
        "crop of INPUT.CROP.SIZE.",
        (FINETUNE,),
        pair("(0, inf)"),
        "v1, appendix A.5",
    ),
    Key(
        "MODEL.SEM_SEG_HEAD.DILATION",
        6,
        "Dilation of the two 3x3 convolutions of DilatedFCNHead, in positions of the feature map.",
        (FINETUNE,),
        within("[1, inf)"),
        "v1, appendix A.5",
    ),
)

SOLVER = (
    Key(
        "SOLVER.EPOCHS",
        200,
        "Length of the run in epochs; an epoch is floor(images / SOLVER.IMS_PER_BATCH) steps.",
        BY_EPOCHS,
        within("[1, inf)"),
        "v1, section 3.3",
        kind=LENGTH,
        instead=_EPOCHS,
    ),
    Key(
        "SOLVER.STEP_EPOCHS",
        (120, 160),
        "Epochs after which EpochMultiStepLR multiplies the learning rate by SOLVER.GAMMA.",
        BY_EPOCHS,
        rising("[0, inf)"),
        "v1, section 3.3",
        kind=LENGTH,
        effect=(when(_SCHEDULE, "EpochMultiStepLR"),),
        instead={FINETUNE: "SOLVER.STEPS"},
    ),
    Key(
        "SOLVER.WARMUP_EPOCHS",
        0,
        "Epochs over which the learning rate of CosineLR first rises from 0; less than SOLVER.EPOCHS.",
        BY_EPOCHS,
        within("[0, inf)"),
        "SimCLR, section 2.2; BYOL, section 3.3",
        effect=(when(_SCHEDULE, "CosineLR"),),
        strict=True,
        instead={FINETUNE: "SOLVER.WARMUP_ITERS"},
    ),
    Key(
        "SOLVER.OPTIMIZER",
        "SGD",
        "SGD, or LARS, whose steps are in proportion to a layer's weights, for batches of thousands. LARS "
        "leaves biases and batch norm without weight decay and without that proportion.",
        (PRETRAIN,),
        one_of("SGD", "LARS"),
        "v1, section 3.3; LARS (You et al. 2017)",
    ),
    Key(
        "SOLVER.LARS_TRUST",
        0.001,
        "Trust coefficient eta of LARS.",
        (PRETRAIN,),
        within("(0, inf)"),
        "LARS (You et al. 2017)",
        effect=(when("SOLVER.OPTIMIZER", "LARS"),),
    ),
    Key(
        "SOLVER.PRECISION",
        "float32",
        "Arithmetic of the encoders: float32, bfloat16, or float16 with a loss scaler (autocast; the loss "
        "and the statistics of batch norm stay in float32). A processor without AVX512, on which bfloat16 "
        "would take many times as long, computes in float32 instead.",
        BY_EPOCHS,
        {PRETRAIN: one_of("float32", "bfloat16", "float16"), CLASSIFY: one_of("float32", "bfloat16")},
        instead={FINETUNE: "SOLVER.AMP.ENABLED"},
    ),
    Key(
        "SOLVER.ACCUMULATE",
        1,
        "Micro-batches in which each process takes its images: all keys first, then the queries, one "
        "enqueue. Where keys get gradients (end_to_end), by a gradient cache: one more forward pass.",
        (PRETRAIN,),
        within("[1, inf)"),
        kind=MACHINE,
    ),
    Key(
        "SOLVER.ACTIVATION_CHECKPOINTING",
        False,
        "Keep only the input of each residual block and compute the rest again in the backward pass.",
        (PRETRAIN,),
        kind=MACHINE,
    ),
    Key(
        "SOLVER.CHANNELS_LAST",
        True,
        "Images and weights in the channels_last memory format.",
        BY_EPOCHS,
        kind=MACHINE,
    ),
    Key(
        "SOLVER.CHECKPOINT_EPOCHS",
        1,
        "Save a checkpoint every so many epochs.",
        BY_EPOCHS,
        within("[1, inf)"),
        kind=WATCHING,
        instead={FINETUNE: "SOLVER.CHECKPOINT_PERIOD"},
    ),
    Key(
        "SOLVER.CHECKPOINT_KEEP",
        3,
        "Keep the newest so many checkpoints; 0 keeps all.",
        BY_EPOCHS,
        within("[0, inf)"),
        kind=WATCHING,
    ),
    Key(
        "SOLVER.LOG_PERIOD",
        20,
        "Write a line to the log, metrics.json and TensorBoard every so many steps.",
        BY_EPOCHS,
        within("[1, inf)"),
        kind=WATCHING,
    ),
)

_FROZEN = when("CLASSIFY.FREEZE", True)
CLASSIFIER = (
    Key(
        "CLASSIFY.ARCH",
        "",
        "The encoder, named as in MODEL.ENCODER.ARCH. Empty: that of MODEL.WEIGHTS.",
        (CLASSIFY,),
        Allowed(f"empty, {ARCHS}", lambda name: name == "" or _is_arch(name)),
        instead={PRETRAIN: "MODEL.ENCODER.ARCH", FINETUNE: "MODEL.RESNETS.DEPTH"},
    ),
    Key(
        "CLASSIFY.FREEZE",
        True,
        "True: the encoder is frozen, batch norm included, and a linear classifier is trained on its pooled "
        "features. False: encoder and classifier are trained (supervised training, or fine-tuning).",
        (CLASSIFY,),
        source="v1, section 4.1",
    ),
    Key(
        "CLASSIFY.FEATURES",
        "live",
        "Features that a linear classifier is trained on: live, of random views, as the paper does; or "
        "cached, of the central view, computed once: seconds instead of hours, and a little less accurate.",
        (CLASSIFY,),
        one_of("live", "cached"),
        "v1, section 4.1",
        effect=(_FROZEN,),
    ),
    Key(
        "CLASSIFY.MORE_LRS",
        (),
        "Further learning rates: for each, one more linear classifier is trained in the same pass, exactly "
        "as it would be alone. SOLVER.BASE_LR stays the recipe's own, whose accuracy is the result.",
        (CLASSIFY,),
        each("(0, inf)"),
        effect=(_FROZEN,),
        strict=True,
    ),
    Key(
        "CLASSIFY.BN_GROUP_SIZE",
        32,
        "Images that batch norm normalizes together where the encoder is trained, as in "
        "MODEL.ENCODER.BN_GROUP_SIZE.",
        (CLASSIFY,),
        within("[2, inf)"),
        effect=(when("CLASSIFY.FREEZE", False),),
        instead={PRETRAIN: "MODEL.ENCODER.BN_GROUP_SIZE"},
    ),
    Key(
        "CLASSIFY.PERIOD_EPOCHS",
        1,
        "Measure the accuracy every so many epochs, and after the last.",
        (CLASSIFY,),
        within("[1, inf)"),
        kind=WATCHING,
        instead={PRETRAIN: "TEST.KNN.PERIOD_EPOCHS", FINETUNE: "TEST.EVAL_PERIOD"},
    ),
    Key("CLASSIFY.NUM_CLASSES", 0, "Number of classes: the class folders are counted.", (), kind=COUNTED),
)

_MONITORED = (unless("TEST.KNN.IMAGES", ""), _FROZEN)
TEST = (
    Key(
        "TEST.COCO_EVALUATOR",
        "pycocotools",
        "What counts COCO's AP: pycocotools (the official code), or faster_coco_eval (the package faster- "
        "coco-eval: the same numbers in less time, which shows on sets of thousands of images).",
        (FINETUNE,),
        one_of("pycocotools", "faster_coco_eval"),
        kind=MACHINE,
    ),
    Key(
        "TEST.EVAL_AT_START",
        False,
        "Evaluate the model before its first iteration too, so that curves begin at 0.",
        (FINETUNE,),
        kind=WATCHING,
    ),
    Key(
        "TEST.HELD_OUT",
        0.0,
        "Measure on this fraction of the labeled training images, which train no classifier then, instead of on "
        "val/: to choose settings without looking at the data that the result is measured on. 0: val/.",
        BY_EPOCHS,
        within("[0, 1)"),
        kind=MEASURE,
        effect=(unless("TEST.KNN.IMAGES", ""),),
    ),
    Key(
        "TEST.KNN.IMAGES",
        "",
        "Monitor pre-training with a kNN classifier: a folder with train/<class>/ and val/<class>/ (or "
        "test/<class>/) images; empty: no kNN.",
        (PRETRAIN,),
        source="InstDisc's monitor; v1, Figure A.1",
        kind=PLACE,
        instead={CLASSIFY: "--images"},
    ),
    Key(
        "TEST.KNN.K",
        200,
        "Neighbors that vote; in tools/train_classifier.py 0 means no kNN.",
        BY_EPOCHS,
        {PRETRAIN: within("[1, inf)"), CLASSIFY: within("[0, inf)")},
        "InstDisc",
        kind=MEASURE,
        effect=_MONITORED,
    ),
    Key(
        "TEST.KNN.TEMPERATURE",
        0.07,
        "Temperature T of the neighbors' weights exp(similarity / T).",
        BY_EPOCHS,
        within("(0, inf)"),
        "InstDisc",
        kind=MEASURE,
        effect=(*_MONITORED, unless("TEST.KNN.K", 0)),
    ),
    Key(
        "TEST.KNN.FEATURES",
        "pooled",
        "What is compared: pooled features before the head, or the embedding.",
        (PRETRAIN,),
        one_of("pooled", "embedding"),
        "embedding: CIFAR-10 demo of MoCo's authors",
        kind=MEASURE,
        effect=_MONITORED,
    ),
    Key(
        "TEST.KNN.CENTER_CROP",
        True,
        "True: the central crop, of 224/256 of the shorter side; False: the whole image, scaled to the "
        "size of a view.",
        (PRETRAIN,),
        kind=MEASURE,
        effect=_MONITORED,
    ),
    Key(
        "TEST.KNN.PERIOD_EPOCHS",
        1,
        "Evaluate every so many epochs, and before the first.",
        (PRETRAIN,),
        within("[1, inf)"),
        kind=WATCHING,
        effect=_MONITORED,
        instead={CLASSIFY: "CLASSIFY.PERIOD_EPOCHS", FINETUNE: "TEST.EVAL_PERIOD"},
    ),
)

_CLIPS = (when("SOLVER.CLIP_GRADIENTS.ENABLED", True),)
DETECTRON2 = (
    Key("VERSION", HOST, "detectron2's version of the config's format.", EVERY_STAGE),
    Key(
        "OUTPUT_DIR",
        HOST,
        "Folder of the run: log, checkpoints, metrics and record.",
        EVERY_STAGE,
        kind=PLACE,
        each_run=True,
        shown=True,
    ),
    Key(
        "SEED",
        HOST,
        "Seed of every random number; negative: one is chosen at random and written to config.yaml.",
        EVERY_STAGE,
        kind=IDENTITY,
        each_run=True,
        shown=True,
    ),
    Key("CUDNN_BENCHMARK", HOST, "Let cuDNN choose the fastest convolutions.", EVERY_STAGE, kind=MACHINE),
    Key(
        "VIS_PERIOD",
        HOST,
        "Draw training images every so many iterations; 0: never.",
        (FINETUNE,),
        kind=WATCHING,
    ),
    Key(
        "MODEL.META_ARCHITECTURE",
        HOST,
        "The model: MoCo, Classifier, a project's, or detectron2's.",
        EVERY_STAGE,
    ),
    Key(
        "MODEL.DEVICE",
        HOST,
        "Where the model computes.",
        EVERY_STAGE,
        matches("cpu|cuda(:.*)?", "'cuda' or 'cpu'"),
        kind=MACHINE,
    ),
    Key(
        "MODEL.WEIGHTS",
        HOST,
        "What the model starts from. In pre-training both encoders start from any checkpoint that convert "
        "reads.",
        EVERY_STAGE,
        kind=IDENTITY,
        shown=True,
    ),
    Key(
        "MODEL.PIXEL_MEAN",
        HOST,
        "Mean that is subtracted from each channel, on the scale 0 to 255.",
        EVERY_STAGE,
        per_channel("(-inf, inf)"),
    ),
    Key(
        "MODEL.PIXEL_STD",
        HOST,
        "Standard deviation that each channel is divided by, on the scale 0 to 255.",
        EVERY_STAGE,
        per_channel("(0, inf)"),
    ),
    Key(
        "MODEL.RESNETS.STRIDE_IN_1X1",
        HOST,
        "Whether a bottleneck's stride is in its first 1x1 convolution (MSRA's weights) or in the 3x3.",
        (CLASSIFY, FINETUNE),
    ),
    Key(
        "MODEL.RESNETS.DEPTH",
        HOST,
        "Layers of the backbone.",
        (FINETUNE,),
        instead={PRETRAIN: "MODEL.ENCODER.ARCH", CLASSIFY: "CLASSIFY.ARCH"},
    ),
    Key(
        "MODEL.RESNETS.NORM",
        HOST,
        "Batch norm of the backbone.",
        (FINETUNE,),
        instead={PRETRAIN: "MODEL.ENCODER.NORM"},
    ),
    Key(
        "INPUT.FORMAT",
        HOST,
        "Order of the first three channels, which files have as red, green and blue; L: there are no such "
        "three, each channel is a gray image of its own.",
        EVERY_STAGE,
        {
            PRETRAIN: one_of("RGB", "L"),
            CLASSIFY: one_of("RGB", "BGR", "L"),
            FINETUNE: one_of("RGB", "BGR", "L"),
        },
    ),
    Key("INPUT.MIN_SIZE_TRAIN", HOST, "Shorter sides, in pixels.", (FINETUNE,), each("[1, inf)")),
    Key("INPUT.MAX_SIZE_TRAIN", HOST, "Longest side, in pixels.", (FINETUNE,), each("[1, inf)")),
    Key(
        "INPUT.MIN_SIZE_TEST", HOST, "Shorter side; 0: images keep their size.", (FINETUNE,), each("[0, inf)")
    ),
    Key("INPUT.MAX_SIZE_TEST", HOST, "Longest side, in pixels.", (FINETUNE,), each("[1, inf)")),
    Key(
        "INPUT.MIN_SIZE_TRAIN_SAMPLING",
        HOST,
        "Sample the shorter side from a list, or from a range.",
        (FINETUNE,),
        one_of("choice", "range"),
    ),
    Key(
        "INPUT.CROP.TYPE",
        HOST,
        "How INPUT.CROP.SIZE is meant.",
        (FINETUNE,),
        one_of("relative_range", "relative", "absolute", "absolute_range"),
    ),
    Key(
        "INPUT.RANDOM_FLIP",
        HOST,
        "Random mirror images.",
        (FINETUNE,),
        one_of("horizontal", "vertical", "none"),
    ),
    Key(
        "DATASETS.TRAIN",
        HOST,
        "Names of registered data sets; in pre-training their labels are ignored.",
        (PRETRAIN, FINETUNE),
        instead={CLASSIFY: "--images"},
    ),
    Key(
        "DATASETS.TEST",
        HOST,
        "Names of registered data sets, on which the result is measured.",
        (FINETUNE,),
        kind=MEASURE,
        instead={PRETRAIN: "TEST.KNN.IMAGES", CLASSIFY: "--images"},
    ),
    Key(
        "DATALOADER.NUM_WORKERS",
        HOST,
        "Processes that load images, for each process of the run.",
        EVERY_STAGE,
        within("[0, inf)"),
        kind=PLACE,
    ),
    Key(
        "DATALOADER.SAMPLER_TRAIN",
        HOST,
        "How training images are sampled.",
        (FINETUNE,),
        one_of("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"),
    ),
    Key("SOLVER.IMS_PER_BATCH", HOST, "Images of the global batch.", EVERY_STAGE, within("[1, inf)")),
    Key(
        "SOLVER.BASE_LR",
        HOST,
        "Learning rate that the schedule begins with.",
        EVERY_STAGE,
        within("(0, inf)"),
    ),
    Key(
        "SOLVER.BASE_LR_END",
        HOST,
        "Learning rate that a cosine ends with, at most SOLVER.BASE_LR.",
        EVERY_STAGE,
        within("[0, inf)"),
        effect=(when(_SCHEDULE, "CosineLR", "WarmupCosineLR"),),
    ),
    Key("SOLVER.MOMENTUM", HOST, "Momentum of SGD.", EVERY_STAGE, within("[0, 1)")),
    Key("SOLVER.WEIGHT_DECAY", HOST, "Weight decay.", EVERY_STAGE, within("[0, inf)")),
    Key(
        _SCHEDULE,
        HOST,
        "EpochMultiStepLR (v1) and EpochCosineLR (v2) change once an epoch; CosineLR with each step, after "
        "a warm-up, down to SOLVER.BASE_LR_END. Fine-tuning has detectron2's.",
        EVERY_STAGE,
        {
            **dict.fromkeys(BY_EPOCHS, one_of("EpochMultiStepLR", "EpochCosineLR", "CosineLR")),
            FINETUNE: one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
        },
        "v1, section 3.3; v2, section 3",
    ),
    Key(
        "SOLVER.GAMMA",
        HOST,
        "Factor of the learning rate at each step of the schedule.",
        EVERY_STAGE,
        within("[0, inf)"),
        effect=(when(_SCHEDULE, "EpochMultiStepLR", "WarmupMultiStepLR", "WarmupStepWithFixedGammaLR"),),
    ),
    Key(
        "SOLVER.MAX_ITER",
        HOST,
        "Iterations of the run.",
        (FINETUNE,),
        within("[1, inf)"),
        kind=LENGTH,
        instead=_NO_EPOCHS,
    ),
    Key(
        "SOLVER.STEPS",
        HOST,
        "Iterations after which the learning rate is multiplied by SOLVER.GAMMA.",
        (FINETUNE,),
        rising("[1, inf)"),
        kind=LENGTH,
        effect=(when(_SCHEDULE, "WarmupMultiStepLR"),),
        instead=dict.fromkeys(BY_EPOCHS, "SOLVER.STEP_EPOCHS"),
    ),
    Key(
        "SOLVER.WARMUP_ITERS",
        HOST,
        "Iterations of the warm-up.",
        (FINETUNE,),
        within("[0, inf)"),
        instead=dict.fromkeys(BY_EPOCHS, "SOLVER.WARMUP_EPOCHS"),
    ),
    Key(
        "SOLVER.AMP.ENABLED",
        HOST,
        "Automatic mixed precision, on a GPU.",
        (FINETUNE,),
        instead=dict.fromkeys(BY_EPOCHS, "SOLVER.PRECISION"),
    ),
    Key(
        "SOLVER.CHECKPOINT_PERIOD",
        HOST,
        "Save a checkpoint every so many iterations.",
        (FINETUNE,),
        within("[1, inf)"),
        kind=WATCHING,
        instead=dict.fromkeys(BY_EPOCHS, "SOLVER.CHECKPOINT_EPOCHS"),
    ),
    Key("SOLVER.CLIP_GRADIENTS.ENABLED", HOST, "Clip gradients before a step.", (PRETRAIN, FINETUNE)),
    Key(
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        HOST,
        "value clips each number, norm the norm of each parameter's gradient.",
        (PRETRAIN, FINETUNE),
        one_of("value", "norm"),
        effect=_CLIPS,
    ),
    Key(
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        HOST,
        "Largest value, or norm.",
        (PRETRAIN, FINETUNE),
        within("(0, inf)"),
        effect=_CLIPS,
    ),
    Key(
        "SOLVER.CLIP_GRADIENTS.NORM_TYPE",
        HOST,
        "Order of the norm.",
        (PRETRAIN, FINETUNE),
        effect=_CLIPS,
    ),
    Key(
        "TEST.EVAL_PERIOD",
        HOST,
        "Evaluate every so many iterations; 0: at the end alone.",
        (FINETUNE,),
        within("[0, inf)"),
        kind=MEASURE,
        instead={PRETRAIN: "TEST.KNN.PERIOD_EPOCHS", CLASSIFY: "CLASSIFY.PERIOD_EPOCHS"},
    ),
)

KEYS = (*ENCODER, *MOCO, *VIEWS, *DATA, *SOLVER, *CLASSIFIER, *TEST, *DETECTRON2)
