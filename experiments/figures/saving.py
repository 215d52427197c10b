"""Writing a figure: a picture for a page and a drawing for print."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 200


def save(figure: "Figure", folder: str | Path, name: str) -> tuple[Path, Path]:
    """Writes ``name.png`` (200 dots per inch) and ``name.pdf`` (vectors), and closes the figure.

    The files have no date in them: with one Matplotlib version, the same figure is the same file.

    Args:
      figure: what was drawn.
      folder: where it goes; made if need be.
      name: of both files, without an ending.

    Returns:
      The two paths.

    Raises:
      ValueError: if ``name`` has a folder or an ending.

    Example:
      >>> import pathlib, tempfile
      >>> import matplotlib.pyplot as plt
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> [path.name for path in save(plt.figure(), folder, "empty")]
      ['empty.png', 'empty.pdf']
    """
    import matplotlib.pyplot as plt

    if not name or Path(name).name != name or Path(name).suffix:
        raise ValueError(f"name must be a plain name without an ending, got {name!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    picture, drawing = folder / f"{name}.png", folder / f"{name}.pdf"
    figure.savefig(picture, dpi=_DOTS_PER_INCH, metadata={"Software": None})
    figure.savefig(drawing, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    plt.close(figure)
    return picture, drawing
