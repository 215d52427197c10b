"""Caches that hold the entries used last, for several threads."""

import concurrent.futures

from async_optax.engine.recent import Recent


def test_the_entry_used_longest_ago_makes_room():
    cache = Recent(3)
    for name in "abc":
        cache[name] = name.upper()
    assert cache.get("a") == "A"  # used
    assert "b" in cache  # used
    assert cache.setdefault("c", "other") == "C"
    cache["a"] = "again"
    cache["d"] = "D"
    assert list(cache) == ["c", "a", "d"]
    assert cache.get("b") is None
    assert cache.setdefault("e", "E") == "E"
    assert len(cache) == 3


def test_threads_share_one():
    cache = Recent(4)

    def use(thread):
        for i in range(2000):
            key = (i * (thread + 1)) % 7
            assert cache.setdefault(key, key) == key
            cache[key] = key
            assert cache.get(key, key) == key

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert len(cache) == 4
