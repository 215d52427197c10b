"""Which optimizers stand late gradients, and what helps them?

From the root of the repository: ``python -m experiments.optimizers_under_delay.run``
(``--help``).
"""

from experiments.optimizers_under_delay.config import PRESETS
from experiments.optimizers_under_delay.figures import draw
from experiments.optimizers_under_delay.measure import measure
from experiments.optimizers_under_delay.tables import RESULTS, tables
from experiments.runner import Experiment

EXPERIMENT = Experiment(__doc__, PRESETS, measure, tables, draw, RESULTS)

if __name__ == "__main__":
    EXPERIMENT.main()
