"""The recipes; each name is a path to a TOML file."""

from pathlib import Path

demo = Path(__file__).with_name("demo.toml")
