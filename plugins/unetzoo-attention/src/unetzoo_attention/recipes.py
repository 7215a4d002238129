"""The recipes; each name is a path to a TOML file."""

from pathlib import Path

_HERE = Path(__file__).parent
attention_composites = _HERE / "attention-composites.toml"
unetplusplus_composites = _HERE / "unetplusplus-composites.toml"
