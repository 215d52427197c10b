"""What is run: the command ``async-optax train`` on 2 and on 4 workers, one of them slower."""

import dataclasses
from collections.abc import Mapping, Sequence

TOLERATED = 0.1  # between the mean staleness measured and predicted: the claim
EQUAL = 1e-4  # of the largest parameter, between a run and its replay, in single precision


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is run.

    Attributes:
      num_workers: numbers of workers; the last one of each run is slow.
      num_commits: of a run, by the number of workers.
      extra_time: seconds that a job takes beside computing, exponential with this mean.
      slow_factor: how much longer that is for the slow worker.
      evaluate_every: commits between evaluations.
      target: test accuracy, that of the demo.
      seeds: of initialisation, batches, noise and waiting times.
      num_predictions: simulations from the measured times, whose arrivals are pooled.
    """

    num_workers: Sequence[int] = (2, 4)
    num_commits: Mapping[int, int] = dataclasses.field(default_factory=lambda: {2: 1000, 4: 2000})
    extra_time: float = 0.04
    slow_factor: float = 4.0
    evaluate_every: int = 20
    target: float = 0.8
    seeds: Sequence[int] = (0, 1, 2)
    num_predictions: int = 10

    def command(self, num_workers: int, seed: int, output: str) -> list[str]:
        """Returns the arguments of ``async-optax`` for one run: the demo's headline method."""
        text = (
            f"train --num-workers {num_workers} --num-commits {self.num_commits[num_workers]}"
            f" --extra-time {self.extra_time:g} --slow-factor {self.slow_factor:g} --num-slow 1"
            " --method async_heavy_tailed --learning-rate 0.25 --arguments weight_fn concurrency"
            f" --evaluate-every {self.evaluate_every} --target {self.target:g} --seed {seed}"
        )
        return [*text.split(), "--output", output]


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        num_workers=(2,),
        num_commits={2: 200},
        extra_time=0.01,
        evaluate_every=50,
        target=0.5,
        seeds=(0,),
        num_predictions=2,
    ),
    "cpu": Preset(),
}
