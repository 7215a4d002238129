"""Weights that ship with the package; each is the folder of a saved network (entry points name these)."""

from pathlib import Path

composites = Path(__file__).with_name("composites")
nuclei = Path(__file__).with_name("nuclei")
