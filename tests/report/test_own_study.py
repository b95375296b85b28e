"""What a study of the user's own data says: verdicts by their rules, labels that are saved, the page."""

import math

import numpy as np
import pytest

from moco_det.report import kept_results, own
from moco_det.report.report import make_sections, write_report
from moco_det.report.rows import build_rows
from moco_det.report.runs import find_runs
from moco_det.report.statistics import Interval

# ---- verdicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "ours", "theirs", "expected"),
    [
        (0.1, 5.0, 12.0, 9.0, "helps"),
        (-5.0, -0.1, 9.0, 12.0, "hurts"),
        (-1.0, 4.0, 12.0, 9.0, "no difference found"),
        (0.0, 4.0, 12.0, 9.0, "no difference found"),  # an interval that begins at 0 holds it
        (-4.0, 0.0, 9.0, 12.0, "no difference found"),
        (0.1, 0.5, 1.9, 1.0, "too low to tell"),  # however sure the difference is
        (0.1, 0.5, 2.0, 1.0, "helps"),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_level(low, high, ours, theirs, expected):
    assert own.verdict(Interval(3, (low + high) / 2, low, high), ours, theirs) == expected


def test_without_an_interval_there_is_no_verdict():
    assert own.verdict(None, 30.0, 10.0) == "too few seeds to tell"
    assert own.verdict(None, 1.0, 1.5) == "too low to tell"


# ---- labels that are saved -------------------------------------------------------------------------------------


def slow_labels_needed(curve, value):
    """The first of many numbers of images at which the highest AP so far reaches the value."""
    images, found = (np.array(column, float) for column in zip(*sorted(curve), strict=True))
    if value < found[0]:
        return 0.0
    highest = [max(found[: i + 1]) for i in range(len(found))]
    grid = np.linspace(math.log(images[0]), math.log(images[-1]), 400_001)
    reached = np.interp(grid, np.log(images), highest) >= value - 1e-12
    return math.exp(grid[reached.argmax()]) if reached.any() else math.inf


@pytest.mark.parametrize("seed", range(8))
def test_labels_needed_equals_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    images, found = rng.choice(5000, 5, replace=False) + 8, rng.uniform(0, 40, 5)
    curve = [*zip(images.tolist(), found.tolist(), strict=True)]
    for value in [*rng.uniform(0, 45, 20), *(ap for _, ap in curve)]:
        expected = slow_labels_needed(curve, value)
        assert own.labels_needed(curve, value) == pytest.approx(expected, rel=1e-4), (curve, value)


def test_labels_needed_by_hand():
    curve = [(100, 10.0), (1000, 20.0), (10_000, 15.0)]
    assert own.labels_needed(curve, 15.0) == pytest.approx(
        math.sqrt(100 * 1000)
    )  # half-way, on a logarithmic axis
    assert own.labels_needed(curve, 20.0) == pytest.approx(1000)
    assert own.labels_needed(curve, 10.0) == 100
    assert own.labels_needed(curve, 20.1) == math.inf and own.labels_needed(curve, 9.9) == 0


# ---- a study's runs --------------------------------------------------------------------------------------------

AP = {  # of random weights and of the pre-trained ones, by labeled images
    "random": {100: 5.0, 1000: 15.0, 10_000: 30.0},
    "own": {100: 10.0, 1000: 16.0, 10_000: 29.0},
}
# By seed: sure at 100 and (the other way) at 10,000 images, not at 1,000.
NOISE = {100: (-0.2, 0.0, 0.2), 1000: (-3.0, 0.0, 3.0), 10_000: (-0.1, 0.0, 0.1)}


@pytest.fixture
def study(make_run):
    """study(leave_out=…, more={init: AP}) makes its runs."""

    def make(leave_out=(), more=(), schedule="short", iterations=100, aps=AP):
        for init, by_images in {**aps, **dict(more)}.items():
            for images, ap in by_images.items():
                for seed, noise in zip((1, 2, 3), NOISE[images], strict=True):
                    name = f"{schedule}_{images}_{init}_{seed}"
                    if name in leave_out:
                        continue
                    extra = {"labeled_images": images, "schedule": schedule, "study": f"{images} {schedule}"}
                    # What is common to both starts falls out of the paired difference.
                    value = ap + 2 * seed + (noise if init != "random" else 0) - 4
                    share = f"own/mine, {images / 100:g}% of the labels"
                    # The learning rate may be each start's own: the config differs, the study does not.
                    about = {"task": share, "iterations": iterations, "extra": extra, "recipe_hash": init}
                    make_run(name, init=init, seed=seed, ap=value, **about)

    return make


def rows_of(tmp_path):
    return own.study_rows(build_rows(*find_runs([tmp_path / "runs"]))[0])


def verdicts(rows):
    return {
        own.num_images_of(row): own._verdict_of(row, own.reference_row(row, rows))
        for row in rows
        if row.init == "own"
    }


def test_each_share_has_its_verdict(study, tmp_path):
    study()
    rows = rows_of(tmp_path)
    assert verdicts(rows) == {100: "helps", 1000: "no difference found", 10_000: "hurts"}
    few, middle, many = own.sentences(rows)
    assert "With 100 labeled images" in few and "helps. AP 10.0" in few and "+5.0 [+4.5, +5.5]" in few
    assert "no difference found" in middle and ": hurts." in many
    assert "so it saves 216" in few and "saves" not in middle  # a difference that was not found saves nothing
    assert own.next_steps(rows) == [
        "a learning rate for each start (--tune-lr), and a look at kNN below: if it did not rise, the "
        "pre-training "
        "failed",
        "more seeds, which narrow the interval (--seeds 5); a longer pre-training (--pretrain-epochs), or "
        "more unlabeled "
        "images (--images)",
        "this start for your detector; more unlabeled images and epochs may add to it",
    ]


def test_labels_saved_have_the_ends_of_the_interval(study, tmp_path):
    study()
    rows = rows_of(tmp_path)
    (few,) = [row for row in rows if row.init == "own" and own.num_images_of(row) == 100]
    found = own.needed_by_random(few, rows)
    tested = own.compare(few, own.reference_row(few, rows))
    curve = [*AP["random"].items()]
    expected = [slow_labels_needed(curve, 5.0 + end) for end in (5.0, tested.low, tested.high)]
    assert [found.mean, found.low, found.high] == pytest.approx(expected, rel=1e-4)
    assert (
        found.in_words
        == "what random weights reach with 316 [282, 355] labeled images, so it saves 216 of them"
    )


def test_beyond_the_curve_there_is_no_number(study, tmp_path):
    study(aps={"random": AP["random"], "own": {100: 3.0, 10_000: 33.0}})
    rows = rows_of(tmp_path)
    few, many = [own.needed_by_random(row, rows) for row in rows if row.init == "own"]
    assert str(few) == "< 100 [< 100, < 100]" and str(many) == "> 10,000 [> 10,000, > 10,000]"
    assert "less than random weights reach with 100" in few.in_words
    assert "more than random weights reach with all 10,000" in many.in_words


def test_nothing_is_said_while_runs_are_missing(study, tmp_path):
    study(leave_out=["short_100_own_3"])
    rows = rows_of(tmp_path)
    assert verdicts(rows)[100] == "too few seeds to tell"
    assert "the runs that are missing: give the same command again" in own.next_steps(rows)


@pytest.mark.parametrize(("middle", "held"), [(5.1, True), (4.0, True), (15.0, False)])
def test_iterations_that_limit_the_result_are_told(study, tmp_path, middle, held):
    """Ten times the labels bring random weights nothing, beyond the spread of the seeds (2)."""
    study(aps={**AP, "random": {**AP["random"], 1000: middle}})
    told = [step for step in own.next_steps(rows_of(tmp_path)) if "with 100 and with 1,000 labeled" in step]
    assert bool(told) == held and all("longer schedule" in step for step in told)
    rows = rows_of(tmp_path)
    for row in rows:
        if own.num_images_of(row) == 1000:
            object.__setattr__(row, "iterations", 400)  # they had more iterations too
    assert not [step for step in own.next_steps(rows) if "with 100 and with" in step]


def test_the_longest_schedule_answers(study, tmp_path):
    study()
    study(schedule="long", iterations=300, aps={"random": {100: 20.0}, "own": {100: 20.0}})
    assert ["no difference found" in sentence for sentence in own.sentences(rows_of(tmp_path))] == [True]


def test_a_better_start_is_named(study, tmp_path):
    study(more={"coco_detector": {100: 20.0, 10_000: 50.0}})
    rows = rows_of(tmp_path)
    assert (
        own.next_steps(rows)[-1] == "coco_detector as the start: with all labels it has the highest mean here"
    )
    others = own.others_table(rows)
    assert [line[2] for line in others.rows] == ["own − coco_detector"] * 2
    assert {line[4] for line in others.rows} == {"hurts"}


def test_the_page_opens_with_the_answer(study, tmp_path):
    study()
    sections = make_sections(*find_runs([tmp_path / "runs"]))
    assert sections[0].title == "Did it help?"
    text = write_report([tmp_path / "runs"], tmp_path / "report").markdown.read_text()
    answer = "Pre-training on your own images (own) against random weights: "
    sentence = text.index("pre-training on your own images (own): helps")
    figure = text.index(
        "10,000 labels, 100 iterations, MoCo on own images: "
    )  # read to those who do not see it
    assert text.index(answer) < figure < text.index("figures/own.png") < sentence < text.index("## Results")
    page = (tmp_path / "report/report.html").read_text()
    verdicts_in_words = "hurts with 10,000 labeled images; no difference found with 1,000; helps with 100."
    assert f'<p class="lead">{answer}{verdicts_in_words}</p>' in page and "prefers-color-scheme: dark" in page
    assert (tmp_path / "report/figures/own.png").stat().st_size > 10_000
    assert "Pre-training helped" not in text  # said once


def test_the_summary_has_one_line_a_share_and_the_figure_its_numbers(study, tmp_path):
    study()
    runs, _ = find_runs([tmp_path / "runs"])
    kept_results.save_results(runs, tmp_path / "results", "own-mine")
    document = tmp_path / "README.md"
    document.write_text("<!-- own-summary:mine -->\n<!-- /own-summary:mine -->\n")
    assert kept_results.update_tables(document, tmp_path / "results")
    header, _, *lines = document.read_text().splitlines()[1:-1]
    assert "| AP, random weights | AP, MoCo on own images | difference [95 %] |" in header
    assert len(lines) == 3 and lines[0] == "| 100 | 100 | 5.0 ± 2.0 | 10.0 ± 2.2 | +5.0 [+4.5, +5.5] |"
    figure = tmp_path / "results/own-mine/figure.png"
    before = figure.read_bytes()
    assert not kept_results.update_tables(document, tmp_path / "results") and figure.read_bytes() == before

    kept = next(
        run for run in kept_results.load_results(tmp_path / "results", "own-mine") if run.init == "own"
    )
    kept.folder.with_suffix(".json").unlink()
    rows = own.study_rows(build_rows(kept_results.load_results(tmp_path / "results", "own-mine"))[0])
    assert not kept_results.figure_is_current(figure, rows)
    kept_results.update_tables(document, tmp_path / "results")
    assert kept_results.figure_is_current(figure, rows) and figure.read_bytes() != before


def test_kept_records_give_the_same_answer(study, tmp_path):
    study()
    runs, _ = find_runs([tmp_path / "runs"])
    kept_results.save_results(runs, tmp_path / "results", "own-mine")
    expected = own.study_markdown(build_rows(runs)[0])
    document = "<!-- own:mine -->\n<!-- /own:mine -->\n"
    assert "helps" in expected and expected in kept_results.render(document, tmp_path / "results")
    assert kept_results.EMPTY in kept_results.render(document.replace("mine", "other"), tmp_path / "results")
    for run in kept_results.load_results(tmp_path / "results", "own-mine"):
        kept_results.restore_run(run, tmp_path / "again" / run.folder.name)
    again, incomplete = find_runs([tmp_path / "again"])
    assert not incomplete and own.study_markdown(build_rows(again)[0]) == expected
    assert sorted(run.curves["bbox/AP"] for run in again) == sorted(run.curves["bbox/AP"] for run in runs)
