"""Does clipping make asynchronous SGD reach a target sooner when half of the workers are slow?

From the root of the repository: ``python -m experiments.clipped_asgd.run`` (``--help``).
"""

from collections.abc import Sequence

from experiments.clipped_asgd.config import PRESETS
from experiments.clipped_asgd.figures import draw
from experiments.clipped_asgd.measure import measure
from experiments.clipped_asgd.tables import RESULTS, tables
from experiments.runner import Experiment

EXPERIMENT = Experiment(__doc__, PRESETS, measure, tables, draw, RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = EXPERIMENT.parser()
    parser.add_argument("--tasks", nargs="+", help="some of the preset's; all by default")
    options = EXPERIMENT.parse(parser, arguments)
    known = PRESETS[options.preset].tasks
    for task in options.tasks or ():
        if task not in known:
            parser.error(f"--tasks must be some of {', '.join(known)}; got {task}")
    if options.tasks and options.output == RESULTS:
        parser.error("--tasks needs an --output of its own: the results are of all tasks")
    EXPERIMENT.run(options, tasks=options.tasks or tuple(known))


if __name__ == "__main__":
    main()
