"""What a project adds from outside: an evaluator with the files it opens, a mapper, recipes by name."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.finetune import datasets, evaluators, mappers
from moco_det.finetune.record_mapper import RecordMapper
from moco_det.model_zoo import get_config, get_config_file, list_configs, recipe_name


@pytest.fixture
def own_data(monkeypatch, tmp_path):
    """A data set of a kind that the core does not know."""
    monkeypatch.setattr(evaluators, "_EVALUATORS", dict(evaluators._EVALUATORS))
    monkeypatch.setattr(datasets, "_NEEDED", dict(datasets._NEEDED))
    DatasetCatalog.register("own_data", list)
    wanted = str(tmp_path / "labels.json")
    MetadataCatalog.get("own_data").set(
        evaluator_type="own", wanted=wanted, where_from={wanted: "ask for it"}
    )
    yield wanted
    DatasetCatalog.remove("own_data")
    MetadataCatalog.remove("own_data")


def test_an_evaluator_from_outside(own_data, tmp_path):
    cfg = get_config("toy/faster_rcnn_R_18_FPN")
    with pytest.raises(ValueError, match="evaluator_type 'own'; expected one of"):
        evaluators.build_evaluator(cfg, "own_data")
    evaluators.register_evaluator("own", lambda cfg, name: f"evaluates {name}", lambda meta: [meta.wanted])
    assert evaluators.build_evaluator(cfg, "own_data") == "evaluates own_data"
    with pytest.raises(ValueError, match=r"labels.json' does not exist.*ask for it, or set"):
        datasets.check_datasets(cfg, ("own_data",))
    (tmp_path / "labels.json").touch()
    datasets.check_datasets(cfg, ("own_data",))


def test_a_mapper_from_outside(monkeypatch):
    monkeypatch.setattr(mappers, "_BUILDERS", list(mappers._BUILDERS))
    cfg = get_config("toy/faster_rcnn_R_18_FPN")
    assert isinstance(mappers.build_mapper(cfg, True), RecordMapper)

    def builder(cfg, is_train):
        return dict if is_train and not cfg.MODEL.MASK_ON else None

    for _ in range(2):
        mappers.register_mapper(builder)
    assert mappers._BUILDERS.count(builder) == 1
    assert mappers.build_mapper(cfg, True) is dict
    assert isinstance(mappers.build_mapper(cfg, False), RecordMapper)


def test_recipes_of_projects_are_found_but_not_listed():
    name = "COCO-DensePose/densepose_rcnn_R_50_FPN_s1x_legacy"
    path = get_config_file(name)
    assert path.endswith(f"projects/DensePose/configs/{name}.yaml") and recipe_name(path) == name
    assert name not in list_configs()
