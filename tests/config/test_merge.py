"""A config from a recipe, overlays and the command line: their order, and what is refused."""

import pytest
from detectron2.config import CfgNode

from moco_det.config import get_cfg, merge_config


def write(path, text):
    path.write_text(text)
    return str(path)


def test_each_layer_counts_over_the_one_below(tmp_path):
    recipe = write(
        tmp_path / "recipe.yaml", "SEED: 1\nSOLVER: {BASE_LR: 0.1, MAX_ITER: 7, IMS_PER_BATCH: 2}\n"
    )
    file = write(tmp_path / "overlay.yaml", "SOLVER: {BASE_LR: 0.2, MAX_ITER: 8}\n")
    node = CfgNode({"SOLVER": {"BASE_LR": 0.3}})
    cfg = get_cfg()
    set_keys = merge_config(cfg, recipe, ["SEED", "4"], (file, node))
    solver = cfg.SOLVER
    assert (cfg.SEED, solver.BASE_LR, solver.MAX_ITER, solver.IMS_PER_BATCH) == (4, 0.3, 8, 2)
    assert set(set_keys) == {"SEED", "SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH"}


def test_tags_of_yaml_run_nothing(tmp_path):
    made = tmp_path / "made"
    recipe = write(tmp_path / "recipe.yaml", f"OUTPUT_DIR: !!python/object/apply:os.mkdir [{made}]\n")
    with pytest.raises(ValueError, match="not YAML of plain values"):
        merge_config(get_cfg(), recipe, [])
    assert not made.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SEED", "1", "--resume"], "the flag --resume stands after a KEY VALUE pair"),
        (["SEED", "1", "SOLVER.BASE_LR"], "must be KEY VALUE pairs; found 3 words"),
        (["SOLVER.BASE_LRR", "1"], "'SOLVER.BASE_LRR' in the command line; .* 'SOLVER.BASE_LR'"),
        (["SEED", "one"], "SEED is 'one'; expected a whole number"),
    ],
)
def test_words_that_are_no_pairs_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        merge_config(get_cfg(), "", words)
