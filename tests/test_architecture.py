"""The direction of imports: explorer -> core, train -> core, and nothing else between them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package and what none of its modules may import.
FORBIDDEN = {
    "core": {
        "train",
        "explorer",
        "tramontana",
        "commands",
        "panel",
        "bokeh",
        "holoviews",
        "lightning",
        "typer",
        "rich",
        "yaml",
    },
    "explorer": {"train", "tramontana", "commands"},
    "train": {"explorer", "tramontana", "commands"},
}
# The one place where YAML becomes a typed model that refuses unknown keys.
ALLOWED = {"core/typed_yaml.py": {"yaml"}}


def imported_packages(source: str) -> set[str]:
    """Top-level names of every import statement, also of those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def calls_torch_load(source: str) -> bool:
    """Whether a module mentions ``torch.load``, by attribute or by import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch":
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            names = {alias.name for alias in node.names}
            if "load" in names:
                return True
    return False


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        wrong = imported_packages(module.read_text()) & FORBIDDEN[package]
        wrong -= ALLOWED.get(module.relative_to(ROOT).as_posix(), set())
        assert not wrong, f"{module.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_check_sees_imports_inside_functions():
    assert imported_packages("def f():\n    from train.unet import x\n    import os.path") == {"train", "os"}


def test_the_check_sees_torch_load():
    assert calls_torch_load("import torch\ntorch.load('x')")
    assert calls_torch_load("from torch import load as innocent")
    assert not calls_torch_load("from safetensors.torch import load\nload(b'')")


def test_core_neither_unpickles_nor_runs_foreign_code():
    for module in (ROOT / "core").rglob("*.py"):
        source = module.read_text()
        assert not {"pickle", "dill", "cloudpickle", "joblib"} & imported_packages(source), module
        assert not calls_torch_load(source), module
