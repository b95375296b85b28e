"""The whole report: one page without a network, the same numbers in Markdown and CSV, errors in words."""

import base64
import csv
import io
import re

import pytest
from PIL import Image

from moco_det.report import figures
from moco_det.report.document import Table, terminal_table
from moco_det.report.figures import mean_and_band
from moco_det.report.panels import open_image
from moco_det.report.report import main, write_report
from moco_det.report.rows import Row
from moco_det.report.runs import read_run
from moco_det.testing.core import write_random_images, write_shard


@pytest.fixture
def runs(make_run, make_pretraining, add_detections, tmp_path):
    """Three seeds of two inits with differences 4, 5 and 6, a pre-training run, an unfinished run."""
    for seed in range(3):
        folder = make_run(f"random_{seed}", seed=seed, ap=10.0 + seed)
        add_detections(folder)
        add_detections(make_run(f"moco_{seed}", init="moco", seed=seed, ap=14.0 + 2 * seed))
    make_pretraining()
    (make_run("stopped", seed=7, ap=99.0) / "run.json").unlink()
    return tmp_path / "runs"


def test_page_holds_every_figure_and_needs_no_network(runs, tmp_path):
    report = write_report([runs], tmp_path / "out")
    page = report.html.read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert 'name="viewport"' in page
    figures = dict(
        re.findall(r'<figure id="(\w+)">\s*<img alt="[^"]{10,}" src="data:image/png;base64,([^"]+)">', page)
    )
    assert sorted(figures) == ["curves_0", "detections_0", "neighbors_0", "pretraining", "sample_views_0"]
    for name, data in figures.items():
        png = base64.b64decode(data)
        assert Image.open(io.BytesIO(png)).width >= 64
        assert png == (tmp_path / "out" / "figures" / f"{name}.png").read_bytes()
    assert page.count("<figcaption>") == page.count("<img ") == 5


def test_numbers_are_the_same_everywhere(runs, tmp_path):
    report = write_report([runs], tmp_path / "out")
    texts = (report.markdown.read_text(), report.html.read_text().replace("&nbsp;", " "), report.table)
    for text in texts:
        for number in ("11.0 ± 1.0", "16.0 ± 2.0", "+5.0 [+2.5, +7.5]", "21.0 → 33.0"):
            assert number in text, number
        assert "99.0" not in text, "an unfinished run was counted"
    for text in texts[:2]:
        assert "stopped" in text and "did not finish" in text


def test_csv_is_exact(runs, tmp_path):
    lines = list(csv.DictReader(write_report([runs], tmp_path / "out").csv.open()))
    moco = next(line for line in lines if (line["init"], line["metric"]) == ("moco", "bbox/AP"))
    assert (moco["n"], moco["mean"], moco["std"], moco["seeds"]) == ("3", "16.0", "2.0", "0 1 2")
    assert (moco["reference"], moco["pairs"], moco["difference"]) == ("random", "3", "5.0")
    assert float(moco["low"]) == pytest.approx(5 - 4.30265 / 3**0.5, abs=1e-5)


def test_few_seeds_say_not_tested_and_one_run_has_no_deviation(make_run, tmp_path):
    make_run("r", ap=10.0)
    make_run("m", init="moco", ap=12.0)
    text = write_report([tmp_path / "runs"], tmp_path / "out").markdown.read_text()
    assert "| moco | 100 | 1 | 12.0 | not tested | 24.0 | 2.0 |" in text
    assert "±" not in text.split("\n\n")[4]


def test_the_papers_rows_stand_beside_the_same_recipe_only(make_run, tmp_path):
    task = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
    make_run("voc", task=task, iterations=24000, ap=33.0)
    make_run("toy")
    text = write_report([tmp_path / "runs"], tmp_path / "out").markdown.read_text()
    assert "| MoCo IN-1M (Table 2) | 24,000 | 5 | 55.9 | — | 81.5 | — |" in text
    assert "COCO-Instance" not in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<tr class='quiet'>") == 8


def test_a_tasks_own_metric_comes_first_with_the_papers_beside_it(make_run, tmp_path):
    task = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x"
    make_run("points", task=task, iterations=180000, metrics={"bbox/AP": 50.0, "keypoints/AP": 60.0})
    text = write_report([tmp_path / "runs"], tmp_path / "out").markdown.read_text()
    assert "| init | iterations | n | keypoint AP | keypoint AP − random | AP | min/run | GiB |" in text
    assert "| MoCo IN-1M (Table 6) | 180,000 | ? | 66.8 | — | — | — | — |" in text


def test_only_pretraining_or_only_unfinished_runs_give_a_report(make_pretraining, tmp_path):
    folder = make_pretraining()
    assert "21.0 → 33.0" in write_report([folder], tmp_path / "a").table
    (folder / "run.json").unlink()
    text = write_report([folder], tmp_path / "b").markdown.read_text()
    assert "1 incomplete run" in text and "33.0" not in text


def test_three_inits_are_compared_with_each_other(make_run, tmp_path):
    for init, ap in {"random": 10.0, "supervised_msra": 12.0, "moco": 15.0}.items():
        for seed in range(3):
            make_run(f"{init}{seed}", init=init, seed=seed, ap=ap + seed)
    text = write_report([tmp_path / "runs"], tmp_path / "out").markdown.read_text()
    assert "| moco − random | 100 | 3 | +5.0 [+5.0, +5.0] | +10.0 [+10.0, +10.0] |" in text
    assert "| moco − supervised_msra | 100 | 3 | +3.0 [+3.0, +3.0] |" in text


def test_missing_and_broken_images_leave_a_gap_only(make_pretraining, make_run, add_detections, tmp_path):
    folder = make_run("r")
    add_detections(folder)
    (folder / "test.png").write_bytes(b"half an image")
    (make_pretraining() / "fish.png").unlink()
    page = write_report([tmp_path / "runs"], tmp_path / "out").html.read_text()
    assert 'id="detections_0"' in page and 'id="neighbors_0"' in page


def test_a_broken_list_is_named(make_pretraining, tmp_path):
    folder = make_pretraining()
    (folder / "neighbors.json").write_text("[{")
    with pytest.raises(ValueError, match="neighbors.json is not readable JSON"):
        write_report([folder], tmp_path / "out")


def test_foreign_text_is_escaped(make_run, tmp_path):
    for init in ("random", "moco"):
        make_run(f"<i>{init}", init=init, task="<b>bold</b>", commit="<u>")
    page = write_report([tmp_path / "runs"], tmp_path / "out").html.read_text()
    assert not re.search("<[biu]>", page)
    assert page.count("&lt;b&gt;bold") == 4, "sentence, title of the table, curves: caption and alt"


def test_without_random_init_there_is_nothing_to_compare_with(make_run, tmp_path):
    for seed in range(3):
        make_run(f"moco_{seed}", init="moco", seed=seed, ap=14.0 + seed)
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "| moco | 100 | 3 | 15.0 ± 1.0 | not tested |" in report.markdown.read_text()


def test_mean_only_where_every_seed_has_a_value():
    assert mean_and_band([[(9, 1.0), (19, 3.0)], [(9, 2.0), (19, 5.0), (29, 9.0)]]) == [
        (9, 1.5, 1.0, 2.0),
        (19, 4.0, 3.0, 5.0),
    ]


def test_output_that_cannot_be_written_is_refused(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="report .*--output"):
        write_report([runs], tmp_path / "file" / "out")


def test_command_line(runs, tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results"
    main([str(runs), "--output", str(out), "--suite", "photos", "--results", str(results)])
    shown = capsys.readouterr().out
    assert "+5.0 [+2.5, +7.5]" in shown
    assert f"report: {out / 'report.html'}" in shown
    assert "incomplete, not counted" in shown and "stopped" in shown
    assert len(list((results / "photos").glob("*.json"))) == 7


@pytest.mark.parametrize("argv", [[], ["nowhere"], ["--update-tables", "nowhere.md"]])
def test_command_line_errors_are_one_sentence(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_images_in_shards_are_shown_too(tmp_path):
    (image,) = write_random_images(tmp_path / "images", 1)
    shard = write_shard(tmp_path / "a.tar", {"cat/0.jpg": image.read_bytes()})
    empty = write_shard(tmp_path / "b.tar", {"readme.txt": b"x"})
    for name in (f"{shard}/cat/0.jpg", "a.tar/cat/0.jpg", "images/000.jpg"):
        assert open_image(name, tmp_path).tobytes() == Image.open(image).tobytes()
    for name in (f"{shard}/cat/1.jpg", shard, f"{empty}/0.jpg", f"{tmp_path}/c.tar/0.jpg"):
        assert open_image(name, tmp_path) is None


@pytest.mark.parametrize("tasks, labels", [("a", ["first", "second"]), ("ab", ["a, 100", "b, 100"])])
def test_runs_of_a_recipe_share_a_color_beside_another_recipe(tasks, labels, make_pretraining, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "to_png", drawn.append)
    runs = tuple(read_run(make_pretraining(name)) for name in ("first", "second"))
    figures.pretraining_curves([Row("pretrain", task, 100, "none", "", runs) for task in tasks])
    lines = drawn[0].axes[0].lines
    assert len(lines) == 2 * len(tasks) and len({line.get_color() for line in lines}) == 2
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == labels


def test_a_table_in_a_terminal_has_words_to_the_left_and_numbers_to_the_right():
    table = Table(("recipe", "n"), (("toy/faster_rcnn", "1"), ("b", "1,000 ± 0.10")))
    assert terminal_table(table).splitlines() == [
        "recipe                      n",
        "---------------  ------------",
        "toy/faster_rcnn             1",
        "b                1,000 ± 0.10",
    ]
