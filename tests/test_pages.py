"""The code and the tables on our pages."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

import async_optax as ao
from async_optax.report import describe_method, methods_page
from tests.conformance.cases import METHODS, make
from tests.conformance.test_methods import REQUIRED
from tests.conformance.test_wrappers import WRAPPERS

ROOT = pathlib.Path(__file__).parents[1]
# The least number of blocks: a page whose blocks were not found must not pass.
PAGES = {
    "README.md": 4,
    "async_optax/transforms/README.md": 6,
    "async_optax/timelines/README.md": 3,
    "async_optax/theory/README.md": 4,
    "async_optax/data/README.md": 4,
    "async_optax/engine/README.md": 5,
    "async_optax/engine/gossip/README.md": 4,
    "async_optax/engine/pipeline/README.md": 2,
}


@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_a_page_runs(page, capsys):
    blocks = (ROOT / page).read_text().split("```python\n")[1:]
    blocks = [block.split("```")[0] for block in blocks]
    assert len(blocks) >= PAGES[page]
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    lines = "".join(blocks).splitlines()
    assert printed == [line.split("# prints ")[1] for line in lines if "# prints " in line]


def test_the_page_shows_what_the_wrappers_do():
    shown = {}
    for line in (ROOT / "async_optax/transforms/README.md").read_text().splitlines():
        if line.startswith("| `optax."):
            wrapper, *cells, caveat = line.strip("| ").split(" | ")
            assert caveat
            shown[wrapper.strip("`").removeprefix("optax.")] = [cell.strip("`") for cell in cells]
    assert shown == {
        wrapper: [
            outcome.gathers,
            outcome.option,
            outcome.needed_by,
            outcome.error.__name__ if outcome.error else "-",
        ]
        for wrapper, outcome in WRAPPERS.items()
    }


def test_the_page_of_methods_is_up_to_date():
    page = (ROOT / "async_optax/optimizers/README.md").read_text()
    assert page == methods_page(), (
        "async-optax methods --markdown > async_optax/optimizers/README.md"
    )


CERTAINTIES = {
    "authors' code",
    "public code",
    "full text",
    "abstract",
    "secondary sources",
    "memory",
    "our reading",
}


@pytest.mark.parametrize("name", sorted(set(ao.optimizers.names()) - {"fedbuff"}))
def test_methods_describe_themselves(name):
    described = describe_method(name)
    assert described.certainty in CERTAINTIES
    assert set(described.needs) == set(REQUIRED.get(name, ()))
    # Not for fedbuff, whose row has the momentum that is optional.
    params = jnp.ones(3)
    state = make(name).init(params)
    size = sum(x.size for x in jax.tree.leaves(state) if x.shape[-1:] == (3,)) // 3
    workers = METHODS[name][0].get("num_workers", 0)
    assert eval(described.memory, {"n": workers}) == size
