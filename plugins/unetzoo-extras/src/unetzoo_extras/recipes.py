"""The recipes; each name is a path to a TOML file."""

from pathlib import Path

_HERE = Path(__file__).parent
oxford_pet = _HERE / "oxford-pet.toml"
drive = _HERE / "drive.toml"
unet_drive = _HERE / "unet-drive.toml"
r2unet_drive = _HERE / "r2unet-drive.toml"
isic2018 = _HERE / "isic2018.toml"
