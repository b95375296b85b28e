"""The tests of a module are found by its name, or here.

``moco_det/ROOM/…/NAME.py`` is tested by ``tests/ROOM/…/test_NAME.py``, with the name of its folder before its own
where another module has that one too: ``test_moco_model.py`` is of ``pretrain/moco/model.py``. ``TESTED_BY`` has
the others: parts of one behavior, which one file tests through its outermost call, and what a command shows.
"""

from moco_det.testing.core import REPOSITORY

TESTED_BY = {
    "benchmark/test_ablation.py": """
        benchmark/ablation_plan model_zoo/ablations report/ablation_figure report/ablation_results
        report/document
    """,
    "benchmark/test_benchmark_command.py": """
        benchmark/estimate benchmark/inits benchmark/plan benchmark/suites
    """,
    "benchmark/test_own.py": """
        benchmark/own/budget benchmark/own/carry_out benchmark/own/command benchmark/own/data
        benchmark/own/plan benchmark/own/settle benchmark/own/tuning
    """,
    "classify/test_command.py": "classify/data data/labeled_folder",
    "classify/test_features.py": "classify/accuracy classify/classifier",
    "classify/test_linear.py": "classify/evaluation_hooks classify/settings classify/trainer",
    "config/test_keys.py": "config/architectures config/key config/page",
    "convert/test_convert.py": "convert/command",
    "convert/test_onnx.py": "weights/sources/onnx_graph",
    "convert/test_prefixes.py": "weights/sources/places",
    "data/test_image_format.py": "data/file_values",
    "data/test_pack.py": "data/packed_images",
    "engine/test_checkpoint_files.py": "engine/checkpoint engine/run_logs utils/files",
    "engine/test_cli.py": "engine/launch",
    "engine/test_processes.py": "engine/agreement engine/lost_processes utils/errors",
    "engine/test_record.py": "utils/machine",
    "finetune/test_check_datasets.py": """
        data/datasets/downloads finetune/check_coco finetune/check_findings finetune/check_voc
    """,
    "finetune/test_dry_run.py": "finetune/command finetune/preflight",
    "finetune/test_extensions.py": "finetune/evaluators finetune/mappers finetune/record_mapper",
    "finetune/test_finetune_datasets.py": "data/datasets/toy data/datasets/toy_classes",
    "finetune/test_finetune_trainer.py": "finetune/samples",
    "finetune/test_inits.py": "config/overlays",
    "finetune/test_leaks.py": "data/near_duplicates",
    "finetune/test_look.py": "finetune/look_images finetune/look_records finetune/look_semantic",
    "finetune/test_own_datasets.py": """
        data/datasets/coco_file data/datasets/own data/datasets/voc_files data/label_images
        finetune/classes finetune/voc_evaluator
    """,
    "finetune/test_sampler.py": "data/labels",
    "finetune/test_segmentation.py": "data/datasets/segmentation",
    "finetune/test_weights_check.py": "finetune/loaded_weights",
    "model_zoo/test_tasks.py": "model_zoo/paper_results",
    "modeling/test_grouped_batch_norm.py": "modeling/collectives utils/seeding",
    "pretrain/test_loader.py": "data/sample_order data/unreadable",
    "pretrain/test_method.py": "modeling/heads",
    "pretrain/test_moco_model.py": """
        modeling/momentum_encoder pretrain/checks pretrain/moco/checks pretrain/moco/shuffled_keys
        pretrain/recompute testing/core testing/methods testing/planted
    """,
    "pretrain/test_own_images.py": "pretrain/preflight",
    "pretrain/test_plan.py": """
        engine/plan_text pretrain/plan/advice pretrain/plan/facts pretrain/plan/trial
        utils/disk_space
    """,
    "pretrain/test_trainer.py": """
        engine/command engine/interruption engine/trainer pretrain/command pretrain/settings
    """,
    "report/test_report.py": "report/captions report/figures report/page report/panels report/tables",
    "report/test_own_study.py": "report/own",
    "speed/test_references.py": "speed/model speed/transfer",
    "speed/test_speed_command.py": """
        report/speed_tables speed/busy speed/clock speed/exchange speed/growth speed/images speed/loop
        speed/measurement speed/options
    """,
    "test_ctrl_c.py": "utils/children",
    "test_hostile_files.py": "finetune/safe_checkpointer",
    "test_packaging.py": "model_zoo/detectron2_zoo version",
    "toyworld/test_keypoints.py": "toyworld/layouts/coco_keypoints",
    "toyworld/test_layouts.py": "toyworld/layouts/coco toyworld/layouts/folders toyworld/layouts/voc",
    "toyworld/test_make.py": "toyworld/world",
    "toyworld/test_scenes.py": """
        toyworld/art toyworld/kinds toyworld/outlines toyworld/procedural toyworld/textures
    """,
    "toyworld/test_segmentation_layouts.py": "toyworld/layouts/cityscapes toyworld/layouts/voc_segmentation",
    "weights/sources/test_families.py": """
        weights/sources/layouts weights/sources/locate weights/sources/recognize
        weights/sources/table
    """,
    "weights/sources/test_foreign_files.py": "weights/sources/foreign weights/sources/reading",
    "weights/test_backbone_tensors.py": "modeling/encoder",
}
TESTS = REPOSITORY / "tests"


def modules() -> set[str]:
    paths = [path.relative_to(REPOSITORY / "moco_det") for path in (REPOSITORY / "moco_det").rglob("*.py")]
    return {path.with_suffix("").as_posix() for path in paths if path.name != "__init__.py"}


def has_tests_of_its_name(module: str) -> bool:
    *folders, name = module.split("/")
    names = (f"test_{name}.py", *(f"test_{folder}_{name}.py" for folder in folders[-1:]))
    return bool(folders) and any(path.name in names for path in (TESTS / folders[0]).rglob("test_*.py"))


def test_the_tests_of_each_module_are_found():
    listed = [module for group in TESTED_BY.values() for module in group.split()]
    assert len(listed) == len(set(listed))
    named = {module for module in modules() if has_tests_of_its_name(module)}
    missing, gone, twice = modules() - named - set(listed), set(listed) - modules(), named & set(listed)
    assert not missing, f"name the tests after the module, or add it to {__file__}: {sorted(missing)}"
    assert not gone and not twice, f"in {__file__} stand modules that are gone or need no row: {gone | twice}"
    assert all((TESTS / path).is_file() for path in TESTED_BY)


def test_each_file_of_tests_has_a_name_of_its_own():
    """pytest imports them by their names alone."""
    names = [path.name for path in REPOSITORY.glob("**/test_*.py") if ".venv" not in str(path)]
    assert not {name for name in names if names.count(name) > 1}
