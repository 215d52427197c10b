"""Seconds and bytes per timeline, their growth, and two protocols against their theory.

Claims: a million arrivals of a thousand workers take at most 1 s where nobody waits for anybody
(renewals, merged by one sort), at most 5 s otherwise (event loop), and at most 100 bytes each,
everything included. Baseline: the barest loop over a heap that yields arrival times, with the
times drawn before, in the same process. Every case has a process of its own, so that its memory
is its own; seconds are medians over turns in which case and baseline alternate.

    python benchmarks/timelines.py
"""

import argparse
import concurrent.futures
import heapq
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import measuring
import numpy as np

import async_optax as ao
from async_optax import protocols, runtimes

NUM_ARRIVALS, NUM_WORKERS = 1_000_000, 1000
RENEWALS, EVENT_LOOP = 1.0, 5.0  # claimed seconds
BYTES = 100  # claimed, per arrival
EXPONENTIAL, GAMMA = runtimes.exponential(), runtimes.gamma(cv=0.5)
SURROUNDED = EXPONENTIAL.with_transfers(
    download=runtimes.exponential(0.1), upload=runtimes.exponential(0.1)
).with_server(runtimes.deterministic(1e-4))
FAILING = EXPONENTIAL.with_failures(runtimes.exponential(100.0), runtimes.exponential(5.0))
CASES = {
    # name: protocol, runtimes, arrivals per commit, claimed seconds
    "asynchronous": (protocols.asynchronous(), EXPONENTIAL, 1, RENEWALS),
    "asynchronous, gamma": (protocols.asynchronous(), GAMMA, 1, RENEWALS),
    "buffered(100)": (protocols.buffered(100), EXPONENTIAL, 100, RENEWALS),
    "token_control(1000)": (protocols.token_control(1000), EXPONENTIAL, 1000, RENEWALS),
    "asynchronous, transfers, server": (protocols.asynchronous(), SURROUNDED, 1, None),
    "asynchronous, failures": (protocols.asynchronous(), FAILING, 1, EVENT_LOOP),
    "asynchronous(uniform)": (protocols.asynchronous("uniform"), EXPONENTIAL, 1, EVENT_LOOP),
    "synchronous": (protocols.synchronous(), EXPONENTIAL, 1000, EVENT_LOOP),
    "buffered(100, wait=True)": (protocols.buffered(100, True), EXPONENTIAL, 100, EVENT_LOOP),
    "bounded_staleness(4)": (protocols.bounded_staleness(4), EXPONENTIAL, 1, EVENT_LOOP),
    "rennala(10000)": (protocols.rennala(10_000), EXPONENTIAL, 10_000, EVENT_LOOP),
    "ringmaster(2000)": (protocols.ringmaster(2000), EXPONENTIAL, 1, EVENT_LOOP),
    "ringmaster(2000, stop)": (protocols.ringmaster(2000, True), EXPONENTIAL, 1, EVENT_LOOP),
    "mindflayer(3, 10000)": (protocols.mindflayer(3.0, 10_000), EXPONENTIAL, 9_500, EVENT_LOOP),
    "round_robin": (protocols.round_robin(), EXPONENTIAL, 1, EVENT_LOOP),
}
GROWTH = (10, 100, 1000, 10_000, 100_000)
GROWTH_CASES = ("asynchronous", "buffered(100)", "bounded_staleness(4)", "asynchronous(uniform)")
EXPONENTS = (0.0, 0.5, 1.0, 2.0)
THEORY_WORKERS = 100


def bare_loop(times, num_workers):
    """The least that an event loop does: who arrives next, and when again."""
    heap = [(times[worker], worker) for worker in range(num_workers)]
    heapq.heapify(heap)
    arrivals = []
    for drawn in times[num_workers:]:
        now, worker = heapq.heappop(heap)
        arrivals.append(now)
        heapq.heappush(heap, (now + drawn, worker))
    return arrivals


def seconds(function, *args, **kwargs):
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name, num_workers, num_arrivals, turns):
    """One case in a process of its own: seconds, ratio to the bare loop, bytes per arrival."""
    protocol, model, per_commit, _ = CASES[name]
    num_commits = num_arrivals // per_commit

    def simulate(commits=num_commits):
        return ao.simulate_timeline(protocol, model, num_workers, num_commits=commits)

    simulate(1)  # imports and caches
    before = resident_bytes()
    first, timeline = seconds(simulate)
    row = {
        "arrivals": timeline.num_arrivals,
        # A process that once held more, while importing, hides what lies below that.
        "bytes_per_arrival": max(measuring.peak_bytes() - before, 0) / timeline.num_arrivals,
        "seconds": first,
    }
    del timeline
    if turns:
        times = runtimes.exponential().quantile(np.random.default_rng(0).random(num_arrivals), 0)
        times = times.tolist()
        pairs = [
            (seconds(simulate)[0], seconds(bare_loop, times, num_workers)[0]) for _ in range(turns)
        ]
        row["seconds"] = statistics.median(ours for ours, _ in pairs)
        row["ratio_to_bare_loop"] = statistics.median(ours / bare for ours, bare in pairs)
    return row


def in_own_process(*args):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *args).result()


def rennala_theory(times, batch_size):
    """Commit time by counting, and its bound by harmonic means of the fastest workers.

    The first B gradients at one version are there at the least t with sum(floor(t / tau_i)) >= B,
    and t <= min over m of (B + m) / sum over i <= m of 1 / tau_i (Tyurin, Richtarik 2023).
    """
    moments = np.unique(np.outer(times, np.arange(1, batch_size + 1)))
    moments = moments[moments <= times.min() * batch_size * (1 + 1e-12)]
    low, high = 0, len(moments) - 1
    while low < high:
        middle = (low + high) // 2
        enough = np.floor(moments[middle] / times * (1 + 1e-12)).sum() >= batch_size
        low, high = (low, middle) if enough else (middle + 1, high)
    return moments[low], *harmonic_bound(times, batch_size)


def harmonic_bound(times, number):
    """Least (number + m) / sum over the m fastest of 1 / tau_i, and the m that attains it."""
    times = np.sort(times)
    fastest = np.arange(1, len(times) + 1)
    bounds = (number + fastest) / np.cumsum(1 / times)
    return float(bounds.min()), int(fastest[bounds.argmin()])


def theory():
    """Rennala's commit times and Ringmaster's blocks of R commits on `power_law` machines."""
    rows = []
    for exponent in EXPONENTS:
        model = runtimes.power_law(exponent)
        times = model.scales(THEORY_WORKERS, seed=0)
        for number in (10, 100, 1000):
            exact, bound, fastest = rennala_theory(times, number)
            row = {"exponent": exponent, "number": number, "workers_used_by_bound": fastest}
            row |= {"rennala_exact": float(exact), "bound": bound}
            timelines = {
                "rennala": protocols.rennala(number),
                "rennala_no_stop": protocols.rennala(number, stop=False),
                "ringmaster": protocols.ringmaster(number - 1),
                "ringmaster_stop": protocols.ringmaster(number - 1, stop=True),
                "synchronous": protocols.synchronous(),
            }
            for name, protocol in timelines.items():
                per_block = number if name.startswith("ringmaster") else 1
                timeline = ao.simulate_timeline(
                    protocol, model, THEORY_WORKERS, num_commits=20 * per_block
                )
                blocks = np.diff(timeline.commit_times[per_block - 1 :: per_block], prepend=0.0)
                row[name] = float(blocks.mean())
                if name != "synchronous":
                    row[f"{name}_longest"] = float(blocks.max())
            # A synchronous commit has as many gradients as workers.
            row["synchronous"] *= number / THEORY_WORKERS
            rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--arrivals", type=int, default=NUM_ARRIVALS)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()

    speed, growth = {}, {}
    print(f"{'case':34} {'s':>6} {'claim':>6} {'of bare loop':>12} {'bytes/arrival':>13}")
    for name, (_, _, _, claim) in CASES.items():
        row = in_own_process(name, NUM_WORKERS, args.arrivals, args.turns)
        speed[name] = row | {"claim": claim}
        print(
            f"{name:34} {row['seconds']:6.2f} {claim or '-':>6} {row['ratio_to_bare_loop']:12.2f} "
            f"{row['bytes_per_arrival']:13.0f}",
            flush=True,
        )
    print(f"\n{'seconds by workers':34} " + " ".join(f"{n:>8}" for n in GROWTH))
    for name in GROWTH_CASES:
        growth[name] = {n: in_own_process(name, n, args.arrivals, 0) for n in GROWTH}
        shown = " ".join(f"{row['seconds']:8.2f}" for row in growth[name].values())
        print(f"{name:34} {shown}", flush=True)
    results = {
        "num_workers": NUM_WORKERS,
        "speed": speed,
        "growth": growth,
        "theory": theory(),
    }
    print("\ntime of B commits' gradients on 100 workers, worker i takes i^p")
    columns = ("bound", "rennala_exact", "rennala", "rennala_no_stop", "ringmaster")
    columns += ("ringmaster_stop", "synchronous")
    print(f"{'p':>4} {'B':>5} " + " ".join(f"{name:>15}" for name in columns))
    for row in results["theory"]:
        shown = " ".join(f"{row[name]:15.2f}" for name in columns)
        print(f"{row['exponent']:4} {row['number']:5} {shown}")
    measuring.write_results(args.output, "timelines", results)


if __name__ == "__main__":
    sys.exit(main())
