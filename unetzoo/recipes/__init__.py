"""The recipes we ship; each is a path to a TOML file (entry points name these)."""

from pathlib import Path

demo = Path(__file__).with_name("demo.toml")
isbi2012 = Path(__file__).with_name("isbi2012.toml")
