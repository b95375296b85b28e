"""Names of the numbers that a run writes into metrics.json and run.json, and that reports read there.

Only those that more than one file names: others stand where they are computed. Those of detectors, such as
``bbox/AP``, are :data:`moco_det.model_zoo.tasks.METRICS`.
"""

# Of a step: counters and the learning rate as they are, the others as means since the last line.
ITERATION = "iteration"
EPOCH = "epoch"
LEARNING_RATE = "lr"
TOTAL_LOSS = "total_loss"
ACCURACY = "accuracy"  # fraction; of the pretext task, or of the classes
SECONDS_PER_STEP = "seconds_per_step"
IMAGES_PER_SECOND = "images_per_second"
DATA_WAIT = "data_wait"  # fraction of the time
# Of contrastive pre-training.
SIMILARITY_POSITIVE = "similarity_positive"
SIMILARITY_BATCH = "similarity_batch"
SIMILARITY_NEGATIVE = "similarity_negative"
EMBEDDING_STD = "embedding_spread"
QUEUE_FILL = "queue_fill"  # fraction of the queue that holds keys of images, and not its random start
BANK_FILL = "bank_fill"  # the same of a memory bank
# Of evaluations, in percent, but for the rank.
EFFECTIVE_RANK = "effective_rank"
KNN_ACCURACY = "knn_accuracy"
KNN_UNTRAINED = "knn_untrained"  # the first kNN accuracy of a run, before its first step
PRETEXT_ACCURACY = "pretext_accuracy"  # the mean of ACCURACY between two measurements of KNN_ACCURACY
KNN_TOP1 = "knn/top1"  # of frozen features
LINEAR_TOP1 = "linear/top1"
LINEAR_TOP5 = "linear/top5"

# Names that runs wrote before, and those of today.
RENAMED = {"queue_real": QUEUE_FILL, "bank_real": BANK_FILL}


def with_todays_names(values: dict) -> dict:
    """The values by today's names; where a resumed run wrote a number by both, today's stands."""
    renamed = {RENAMED[name]: value for name, value in values.items() if name in RENAMED}
    return renamed | {name: value for name, value in values.items() if name not in RENAMED}
