"""The recipes; each name is a path to a TOML file."""

from pathlib import Path

_HERE = Path(__file__).parent
oxford_pet = _HERE / "oxford-pet.toml"
drive = _HERE / "drive.toml"
isic2018 = _HERE / "isic2018.toml"
