"""The recipes we ship; each is a path to a TOML file (entry points name these)."""

from pathlib import Path

demo = Path(__file__).with_name("demo.toml")
isbi2012 = Path(__file__).with_name("isbi2012.toml")
helen = Path(__file__).with_name("helen.toml")
celebamask_eyes_lips = Path(__file__).with_name("celebamask-eyes-lips.toml")
unet_cityscapes = Path(__file__).with_name("unet-cityscapes.toml")
r2unet_cityscapes = Path(__file__).with_name("r2unet-cityscapes.toml")
ddunet_cityscapes = Path(__file__).with_name("ddunet-cityscapes.toml")
carvana = Path(__file__).with_name("carvana.toml")
eva_mask_depth = Path(__file__).with_name("eva-mask-depth.toml")
nuclei = Path(__file__).with_name("nuclei.toml")
