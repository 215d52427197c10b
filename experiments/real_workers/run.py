"""Do real workers reach the demo's target, and is their staleness what the simulator predicts?

From the root of the repository: ``python -m experiments.real_workers.run --preset cpu``
(``--help``).
"""

from experiments.real_workers.config import PRESETS
from experiments.real_workers.figures import draw
from experiments.real_workers.measure import measure
from experiments.real_workers.tables import RESULTS, tables
from experiments.runner import Experiment

EXPERIMENT = Experiment(__doc__, PRESETS, measure, tables, draw, RESULTS)

if __name__ == "__main__":
    EXPERIMENT.main()
