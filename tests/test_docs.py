"""The pages run as written; the one that adds a state space is short, and its asserts can fail."""

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "add_a_state_space.md"
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


def run(code):
    """Execute the blocks in one namespace, with an assert that counts itself."""
    tree, names = ast.parse(code), {"__name__": "page", "ran": []}
    body = []
    for node in tree.body:
        body.append(node)
        if isinstance(node, ast.Assert):
            body.append(ast.parse(f"ran.append({node.lineno})").body[0])
    tree.body = body
    exec(compile(ast.fix_missing_locations(tree), str(PAGE), "exec"), names)
    return names["ran"]


def test_the_page_runs():
    assert len(run(CODE)) == CODE.count("\nassert ") == 10


def test_both_examples_are_short():
    flat, curved = CODE.split("from gmjax.processes import hyperbolic")
    for code, most in ((flat, 60), (curved, 80)):
        lines = (line.strip() for line in code.splitlines())
        assert len([line for line in lines if line and not line.startswith("#")]) < most


@pytest.mark.slow
@pytest.mark.parametrize(
    "right, wrong",
    [
        ("for s in (1, -1)", "for s in (1,)"),
        ("project=fold", "project=lambda y: y"),
        ("noise=lambda x, t: jnp.sqrt(s", "noise=lambda x, t: jnp.sqrt(2 * s"),
        ("noise=lambda x, t: jnp.sqrt(2", "noise=lambda x, t: jnp.sqrt(4"),
        (
            "calculus.gradient(matrices, lambda y: log_prob(y, x0, t), x)",
            "jax.grad(log_prob)(x, x0, t)",
        ),
    ],
)
def test_a_mistake_is_caught(right, wrong):
    assert CODE.count(right) == 1
    with pytest.raises(AssertionError):
        run(CODE.replace(right, wrong))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["flow_matching.md", "gaussian_diffusion.md"])
def test_the_blocks_of_a_page_run(page):
    text = (PAGE.parent / page).read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert len(run(code)) == code.count("\nassert ") > 0


README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
def test_the_readme_runs(block):
    exec(compile(block, str(README), "exec"), {"__name__": "readme"})
