"""The experiment on heavy tails: its parts, a smoke run, and its page against its results."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from experiments.heavy_tailed import (
    config,
    curves,
    finetune,
    measure,
    methods,
    run,
    standings,
    tables,
)
from experiments.heavy_tailed.figures import main as draw
from experiments.heavy_tailed.grids import MOST, around, num_near, tune
from experiments.heavy_tailed.sentiment import sentiment


@pytest.mark.slow
def test_the_smoke_run_ends_and_is_not_run_again(tmp_path, capsys):
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    shown, summary = capsys.readouterr().out, json.loads((tmp_path / "smoke.json").read_text())
    assert list(summary["tasks"]) == ["digits", "sentiment"]
    for task in summary["tasks"].values():
        ours = np.array(task["methods"][standings.OURS]["accuracy"])
        assert ours.shape == (1, 1, 3)
        assert np.shape(task["methods"][standings.OURS]["fresh"]["0"]) == (2, 3)
        assert np.all((ours >= 0) & (ours <= 1))
        assert "| ours, adaptive clip, Adam | asynchronous |" in shown
    (first, *_, last) = summary["tasks"]["digits"]["tails"]
    assert (first["time"], last["time"]) == (0, 8)
    assert summary["tasks"]["digits"]["staleness"]["synchronous"]["largest"] == 0
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    again = json.loads((tmp_path / "smoke.json").read_text())
    seconds = "processor_seconds_of_this_call"
    assert again[seconds] < summary[seconds]  # what was stored is not run again
    del again["processor_seconds_of_this_call"], summary["processor_seconds_of_this_call"]
    assert again == summary
    draw(["--results", str(tmp_path)])
    for name in ("accuracy", "rates", "along"):  # no ablation in a smoke run
        assert (tmp_path / f"smoke-{name}.png").stat().st_size > 5_000
        assert (tmp_path / f"smoke-{name}.pdf").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "cpu-real-text", "--tasks", "glue/snli"],
            "task must be one of .* got 'glue/snli'",
        ),
        (["--preset", "smoke", "--tasks", "glue/rte"], "task must be one of .* got 'glue/rte'"),
        (
            ["--preset", "cpu-real", "--data-dir", "nowhere"],
            "data_dir must name a folder .*nowhere",
        ),
        (
            ["--preset", "cpu-real-text", "--tasks", "glue/mrpc", "--checkpoint", "none"],
            "checkpoint 'none' has no config.json",
        ),
        (["--preset", "finetune-sst2", "--checkpoint", "none"], "checkpoint 'none' has no config"),
    ],
)
def test_what_is_missing_is_said_in_a_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.delenv("ASYNC_OPTAX_DATA", raising=False)
    with pytest.raises(SystemExit, match=message) as error:
        run.main([*arguments, "--output", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_another_task_of_glue_has_the_sizes_of_one():
    gpu = config.PRESETS["gpu"]
    assert config.with_task(gpu, "glue/cola").targets[-1] == 0.82
    other = config.with_task(gpu, "glue/rte")
    assert other == dataclasses.replace(config.with_task(gpu, "glue/sst2"), task="glue/rte")


def test_the_grid_goes_on_until_the_best_is_no_edge():
    tried = []

    def accuracy(k):
        tried.append(k)
        return -abs(k - 7)

    assert tune(accuracy, (-2, 0, 2), 8) in (6, 8)
    assert tried == [-2, 0, 2, 4, 6, 8]
    assert tune(lambda k: k, (-2, 0, 2), 5) == 4
    slopes = {-2: 0.5, -1: 0.79, 0: 0.8, 1: 0.785, 2: 0.83, 3: 0.6}
    assert around(slopes.get, 0, 8) == [-2, -1, 0, 1, 2, 3]
    assert num_near(list(slopes.values())) == 1
    assert len(around(lambda k: 0.1, 0, 8)) == MOST
    assert around(lambda k: 0.1, 0, 1) == [-1, 0, 1]


def test_off_is_off():
    x, s = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 1.0, 0.0])
    g = jnp.array([3.0, -0.02, 0.004])
    arguments = {"stale_params": s, "staleness": 500}

    def stepped(optimizer):
        return optimizer.update(g, optimizer.init(x), x, **arguments)[0]

    off = {"workers": methods.OFF, "kappa": 0.0}
    np.testing.assert_array_equal(
        stepped(methods.weighted(0.1, methods.OFF)), stepped(ao.optimizers.sgd(0.1))
    )
    np.testing.assert_allclose(
        stepped(methods.by_norm(0.05, 0.5, **off)),
        stepped(ao.optimizers.clipped_sgd(0.1, 0.5)),
        rtol=1e-6,
    )
    found = stepped(methods.by_coordinate(0.001, 0.01, floor=0.5, **off))
    np.testing.assert_allclose(found, [-0.001, 0.001, -0.0005], rtol=1e-5)
    on = stepped(methods.by_coordinate(0.001, 0.01, floor=0.5, workers=250.5, kappa=0.25))
    correction = 0.25 / 0.01**2 * np.array([0.01, 0.01, 0.005]) ** 2 * np.array(x - s)
    clipped = np.array([0.01, -0.01, 0.005])
    bound = 0.5 * np.linalg.norm(clipped) / np.linalg.norm(correction)
    expected = -0.1 * 0.5 * (clipped + min(1, bound) * correction)
    np.testing.assert_allclose(on, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_server_takes_the_sum_of_a_commit_as_its_gradient():
    found = methods.adam_server(0.1, 0.5, floor=0.0, workers=3.0, kappa=0.25, b1=0.6)
    x, stale = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 1.0, 0.4])
    state, m, v = found.init(x), np.zeros(3), np.zeros(3)
    for step, g in enumerate(([0.1, -3.0, 0.004], [-0.2, 0.3, 0.45]), start=1):
        update, state = found.update(
            jnp.array(g), state, x, stale_params=stale, staleness=jnp.int32(6)
        )
        h = np.clip(g, -0.5, 0.5)
        correction = 0.25 / 0.5**2 * h * h * np.array(x - stale)
        correction *= min(1, 0.5 * np.linalg.norm(h) / np.linalg.norm(correction))
        d = 3 / 6 * (h + correction)
        m, v = 0.6 * m + 0.4 * d, 0.999 * v + 0.001 * d * d
        expected = -0.1 * m / (1 - 0.6**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(update, expected, rtol=1e-6)
    with pytest.raises(TypeError, match="server must be a function such as optax.adam, got 'adam'"):
        ao.optimizers.async_heavy_tailed(0.1, server="adam")


def test_every_method_is_run_and_takes_over_what_is_there():
    found = methods.methods(config.PRESETS["cpu"])
    names = [method.name for method in found]
    assert len(set(names)) == len(names) == 30
    for place, method in enumerate(found):
        assert method.unit in methods.START
        for choice in method.choices:
            method.make(0.1, **choice)
        if method.like is not None:
            (other,) = (m for m in found[:place] if m.name == method.like)
            assert len(other.choices) == len(method.choices)
    for preset in config.PRESETS.values():
        chosen = {name for task in preset.tasks for name in task.methods}
        assert chosen <= {*names}


def test_an_earlier_end_is_the_beginning_of_the_same_timeline():
    long, short = (
        ao.simulate_timeline(ao.protocols.asynchronous(), config.RUNTIMES, 8, max_time=time, seed=3)
        for time in (40.0, 10.0)
    )
    for column in ("worker", "read_version", "time"):
        np.testing.assert_array_equal(
            getattr(long, column)[: len(short.time)], getattr(short, column)
        )


def test_sentences_are_judged_by_their_words():
    task = sentiment(800, 100)
    assert not {*task.train.first} & {*task.validation.first}
    assert 0.4 < task.train.labels.mean() < 0.6
    assert 0.4 < task.validation.labels.mean() < 0.6
    # A bag of words can tell: least squares on counts.
    words = sorted({word for part in task[:2] for text in part.first for word in text.split()})
    place = {word: i for i, word in enumerate(words)}

    def counts(part):
        rows = np.zeros((len(part.first), len(words)))
        for row, text in zip(rows, part.first, strict=True):
            np.add.at(row, [place[word] for word in text.split()], 1.0)
        return rows

    signs = 2.0 * task.train.labels - 1
    weights = np.linalg.lstsq(
        counts(task.train).T @ counts(task.train) + np.eye(len(words)),
        counts(task.train).T @ signs,
    )[0]
    guessed = counts(task.validation) @ weights > 0
    assert np.mean(guessed == task.validation.labels) > 0.85


def test_batches_of_fine_tuning_go_through_all_examples_of_like_length():
    setting = finetune.Finetuning(num_epochs=2, batch_size=4, lengths=(4, 8, 16))
    sizes = np.random.default_rng(0).integers(2, 17, 402)
    arrays = {
        "ids": np.arange(402)[:, None] * np.ones((1, 16), int),
        "mask": np.arange(16) < sizes[:, None],
        "label": np.arange(402),
    }
    batches = list(finetune._batches(arrays, setting, 200))
    assert len(batches) == 200
    first = np.concatenate([batch["label"] for batch in batches[:100]])
    assert len(set(first.tolist())) == 400
    assert not np.array_equal(first, np.concatenate([b["label"] for b in batches[100:]]))
    for batch in batches:
        longest = sizes[batch["label"]].max()
        assert batch["ids"].shape[1] == min(x for x in setting.lengths if x >= longest)
        np.testing.assert_array_equal(batch["ids"][:, 0], batch["label"])
    padded = sum(batch["ids"].size for batch in batches)
    assert padded < 1.35 * sizes.sum() * 2


def test_a_saved_state_of_fine_tuning_is_read_by_its_own_setting_only(tmp_path):
    path = tmp_path / "checkpoint.npz"
    state = ({"w": jnp.arange(3.0)}, (jnp.int32(4), {"w": jnp.ones(3)}))
    described = {"task": "sst2", "seed": 0}
    finetune._save(path, described, state, 7, [{"step": 7}])
    empty = jax.tree.map(jnp.zeros_like, state)
    found, step, history = finetune._restored(path, described, empty)
    assert (step, history) == (7, [{"step": 7}])
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    with pytest.raises(ValueError, match="another setting"):
        finetune._restored(path, described | {"seed": 1}, empty)


def method(accuracy, fresh, fastest, role="baseline", protocol="asynchronous"):
    return {
        "role": role,
        "protocol": protocol,
        "rates": [2.0**k for k in range(len(accuracy))],
        "accuracy": accuracy,
        "fastest": fastest,
        "fresh": fresh,
    }


def test_the_verdicts():
    # Two learning rates, two seeds, eleven evaluations of which the last one counts.
    slow = [[[0.0] * 5 + [0.6] * 5 + [0.8]] * 2, [[0.0] * 2 + [0.6] * 8 + [0.7]] * 2]
    ours = [[[0.0] * 3 + [0.6] * 7 + [0.9]] * 2, [[0.0] + [0.6] * 9 + [0.89]] * 2]
    uneven = [[[0.0] * 11, [0.6] * 11]] * 2
    fresh = {
        "slow": {"0": [[0.0] * 6 + [0.8] * 5] * 2, "1": [[0.0] * 3 + [0.6] * 8] * 2},
        "ours": {"0": [[0.0] * 9 + [0.9] * 2] * 2, "1": [[0.0, 0.6] + [0.7] * 9, [0.6] * 11]},
    }
    times = list(range(11))
    task = {
        "times": times,
        "setting": {"targets": [0.6, 0.85]},
        "methods": {
            "slow": method(slow, fresh["slow"], [1, 0]),
            "uneven": method(uneven, {"0": uneven[0]}, [0, 0], protocol="synchronous"),
            standings.OURS: method(ours, fresh["ours"], [1, 0], role="ours"),
        },
    }
    for measured in task["methods"].values():
        for target, number in zip((0.6, 0.85), measured["fastest"], strict=True):
            assert curves.fastest_rate(measured, times, target) == number
    assert standings.arrivals(task, "slow", 0).tolist() == [3, 3]
    assert standings.arrivals(task, "slow", 0, fastest=False).tolist() == [6, 6]
    assert standings.arrivals(task, "uneven", 0).tolist() == [np.inf, 0]
    (found,) = standings.claims({"tasks": {"here": task}}).values()
    low, high = found["targets"]
    assert low["ours"] == {
        "name": standings.OURS,
        "time": 0.5,
        "reached": 2,
        "lead": 2.5,
        "error": 0.5,
        "holds": True,
        "holds_over_others": True,
    }
    assert low["baseline"] == {"name": "slow", "time": 3, "reached": 2}
    assert low["synchronous"] == {"name": "uneven", "time": 5, "reached": 1}
    assert not low["holds_at_best"]  # 9 against 5: of two seeds, one at 0, one never
    assert (high["baseline"], high["ours"]["lead"], high["ours"]["holds"]) == (None, 1, True)
    assert found["range"]["ours"] == 2
    assert (found["range"]["baseline"], found["range"]["baseline_width"]) == ("slow", 1)
    assert found["range"]["holds"]


SUMMARY = json.loads((tables.RESULTS / "cpu.json").read_text())


def test_the_page_shows_what_was_measured():
    lines = (tables.RESULTS.parent / "README.md").read_text().splitlines()
    finetuning = json.loads((tables.RESULTS / "finetune-sst2.json").read_text())
    shown = {*tables.tables(SUMMARY).splitlines(), *tables.finetuning_lines(finetuning)}
    real = json.loads((tables.RESULTS / "cpu-real.json").read_text())
    shown |= {*tables.claim_lines(real), *tables.result_lines(real, "cifar10")}
    assert shown <= {*lines}
    assert real["claims"] == standings.claims(real)
    assert SUMMARY["claims"] == standings.claims(SUMMARY)
    cpu = config.PRESETS["cpu"]
    assert [*SUMMARY["tasks"]] == [setting.name for setting in cpu.tasks]
    assert (*SUMMARY["fresh"],) == cpu.fresh
    for setting, task in zip(cpu.tasks, SUMMARY["tasks"].values(), strict=True):
        assert task["setting"]["model"] == setting.model
        assert [*task["methods"]] == [m.name for m in measure.chosen_methods(cpu, setting)]


def test_what_is_claimed_of_the_stored_results():
    targets = {name: found["targets"] for name, found in SUMMARY["claims"].items()}
    rows = [row for found in targets.values() for row in found]
    # Before every baseline but asynchronous Adam, everywhere.
    assert len(rows) == 12
    assert all(row["ours"]["holds_over_others"] for row in rows)
    # Before all of them on text; on images not always.
    assert all(row["ours"]["holds"] for row in targets["sentiment"])
    assert [row["ours"]["holds"] for row in targets["digits"]] == [True, False, True, False]
    assert [row["ours"]["holds"] for row in targets["digits, noise added"]] == [False] + [True] * 3
    assert sum(row["holds_at_best"] for row in rows) == 11
    # As wide as the best baseline on digits alone, as the page says.
    wide = {name: found["range"]["holds"] for name, found in SUMMARY["claims"].items()}
    assert wide == {"digits": True, "sentiment": False, "digits, noise added": False}


def test_gradients_are_heavier_later_and_infinite_with_noise():
    for name, task in SUMMARY["tasks"].items():
        verdicts = {row["norms"]["verdict"] for row in task["tails"]}
        assert verdicts == {"infinite variance" if "noise" in name else "finite variance"}
        if "noise" not in name:
            first, *_, last = task["tails"]
            assert last["coordinates"]["index"] < 0.6 * first["coordinates"]["index"]
