"""What two descriptions of runs differ in, in one line."""

from async_optax.engine.fingerprint import describe, differences
from tests.engine.problems import make_timeline


def test_differences():
    assert differences({"a": "1"}, {"a": "1"}) == ""
    assert differences({"a": "1"}, {"b": "2"}) == (
        "a is 1 there and absent here; b is absent there and 2 here"
    )
    there, here = "x" * 200 + "1" + "y" * 200, "x" * 200 + "2" + "y" * 200
    text = differences({"a": there}, {"a": here})
    assert f"{'x' * 30}1yyy" in text
    assert f"{'x' * 30}2yyy" in text
    assert len(text) < 200


def test_differences_of_one_part_are_counted_and_scalars_come_first():
    there = {"a": "1", "t.x": "int32[9] sha256 ab", "t.f": "m.f code ab", "t.n": "3", "t.m": "4"}
    here = {"a": "2", "t.x": "int32[9] sha256 cd", "t.f": "m.f code cd", "t.n": "5", "t.m": "4"}
    assert differences(there, here) == (
        "a is 1 there and 2 here; t.n is 3 there and 5 here; "
        "t.x is int32[9] sha256 ab there and int32[9] sha256 cd here, and 1 more of t"
    )
    assert differences({"t.f": "m.f code ab"}, {"t.f": "m.g code cd", "t.n": "1"}) == (
        "t.f is m.f code ab there and m.g code cd here; t.n is absent there and 1 here"
    )
    timelines = [describe("timeline", make_timeline(200, seed=seed)) for seed in range(2)]
    text = differences(*timelines)
    assert text.startswith("timeline.end_time is ")
    assert len(text) < 250
