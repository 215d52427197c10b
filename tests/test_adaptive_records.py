"""The page of the experiment on adaptive methods against its results, and its main claims."""

import json
import pathlib

import pytest

from experiments.adaptive import config, measure, run, tables

PAGE = pathlib.Path(run.__file__).parent / "README.md"
SUMMARY = json.loads((tables.RESULTS / "summary.json").read_text())


def test_the_page_shows_every_row():
    page = PAGE.read_text().splitlines()
    lines = [tables.line(row) for study in SUMMARY["studies"].values() for row in study["rows"]]
    for study in SUMMARY["studies"].values():
        lines += tables.carried_lines(study["carried"])
    lines += tables.strength_lines(SUMMARY["strengths"])
    assert len(lines) > 100
    assert set(lines) <= set(page)


def test_the_page_shows_every_picture():
    page = PAGE.read_text()
    for picture in tables.RESULTS.glob("*.png"):
        assert f"(results/{picture.name})" in page


@pytest.mark.slow
def test_the_smoke_test_writes_everything(tmp_path, capsys):
    run.main(["--quick", "--seeds", "1", "--output", str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {path.name for path in tables.RESULTS.glob("*.png")}
    assert names == pictures | {"summary.json"}
    assert "| digits | dynamic |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--quick"], ["--seeds", "0"], ["--threads", "-1"]])
def test_bad_arguments_exit_with_code_two(arguments):
    with pytest.raises(SystemExit) as exit_info:
        run.main(arguments)
    assert exit_info.value.code == 2


def accuracy(method, learning_rate, loss_scale):
    problem = config.problems.digits(hidden=(16,))
    setting = config.setting(
        "small", problem, 0.05, loss_scale=loss_scale, max_time=30.0, learning_rates=[]
    )
    return measure.run_once(setting, method, learning_rate, seed=0)["accuracy"]


@pytest.mark.slow
def test_the_normalised_clip_needs_no_tuning_to_the_scale():
    methods = {method.name: method for method in config.clipping_methods()}
    normalised, fixed = methods["quantile, normalised"], methods["coordinate 0.03"]
    rate = 0.5 * normalised.rate_unit
    ours = [accuracy(normalised, rate, scale) for scale in (1 / 64, 1.0, 64.0)]
    theirs = [accuracy(fixed, 0.5, scale) for scale in (1 / 64, 1.0)]
    assert min(ours) > 0.7
    assert max(ours) - min(ours) < 0.05
    assert theirs[1] > 0.7
    assert theirs[0] < 0.5
