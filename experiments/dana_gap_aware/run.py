"""What do momentum per worker, its look-ahead and gap penalties save over numbers of workers?

From the root of the repository: ``python -m experiments.dana_gap_aware.run --preset cpu``
(``--help``).
"""

from experiments.dana_gap_aware.config import PRESETS
from experiments.dana_gap_aware.figures import draw
from experiments.dana_gap_aware.measure import measure
from experiments.dana_gap_aware.tables import RESULTS, tables
from experiments.runner import Experiment

EXPERIMENT = Experiment(__doc__, PRESETS, measure, tables, draw, RESULTS)

if __name__ == "__main__":
    EXPERIMENT.main()
