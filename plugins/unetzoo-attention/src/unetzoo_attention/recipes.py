"""The recipes; each name is a path to a TOML file."""

from pathlib import Path

attention_composites = Path(__file__).with_name("attention-composites.toml")
