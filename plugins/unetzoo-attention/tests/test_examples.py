"""The examples in docstrings and README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import unetzoo_attention

README = Path(__file__).parents[1] / "README.md"
MODULES = [module.name for module in pkgutil.iter_modules(unetzoo_attention.__path__, "unetzoo_attention.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
def test_the_readme_runs(code):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
