"""The recipes, as paths to TOML files."""

from pathlib import Path

demo = Path(__file__).with_name("demo.toml")
