"""What stands below each figure and table: what one sees, and how to read it."""

RESULTS = (
    "AP and IoU in points from 0 to 100, higher is better; mean ± sample standard deviation over n runs that "
    "differ in the seed alone (one run has no deviation; “2 of 3” says that a planned one is not finished). "
    "… − random: minus that of random init at the same seed, mean and 95 % t-interval over the shared seeds; "
    "“not tested” with fewer than three of them. An interval that holds 0 does not show a difference. At start: "
    "before the first iteration. GiB: the most memory that a run held, of its GPU or, on the CPU, of the machine."
)
PAPER_ROWS = (
    "Gray rows are what the paper printed, with its data and its training length; none of them was run here."
)
PAIRS = (
    "Mean difference of the runs that share a seed, with its 95 % t-interval. The seed fixes what both "
    "runs choose at random (new layers, order of the images), so pairing takes a part of the noise out. Not"
    " corrected for the number of comparisons."
)
PRETRAINING_TABLE = (
    "kNN: fraction of labeled test images whose nearest labeled training images vote for the "
    "right class, by the features of the encoder before → after pre-training. The labels serve this "
    "number alone; training never sees them."
)
CURVES = (
    "AP, or IoU, on the test images during fine-tuning. Thick line: mean over the seeds; band: from the lowest to "
    "the highest seed; thin lines: the runs. A gap that closes to the right is a faster start; one that "
    "is still there at the end of the longest schedule is a better detector."
)
PRETRAINING_CURVES = (
    "The loss is that of finding the positive key among K+1. It rises at first, while keys of images, which are "
    "harder to tell apart than the random ones of the start, fill the queue; then it should fall and the "
    "(K+1)-way accuracy rise. kNN accuracy says whether the features come to tell classes apart; dotted: "
    "the untrained encoder."
)
SAMPLE_VIEWS = (
    "Pairs of random views as the two encoders get them. The two of a pair should be hard, but possible, "
    "to recognize as the same image."
)
NEIGHBORS = (
    "Left, with its class: a test image. To its right the training images with the most similar features,"
    " the most similar first, with their cosine similarity. Blue frame: the same class; dashed orange: another. A "
    "poor encoder finds images that agree in color or background alone."
)
DETECTIONS = (
    "The same test images, one column per init (the run of its lowest seed). Dashed white: true boxes; "
    "orange: detections with class and score, from a score of 0.3. Look for true boxes that no orange one"
    " matches, and the reverse."
)
