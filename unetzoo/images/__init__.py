"""Images as arrays and tensors: decoding files, normalization, and what a network's validation does to an image.

The ground below `unetzoo.datasets` and `unetzoo.inference`: both read an image here, so both see the same pixels.
"""

from .arrays import as_tensor
from .decode import read_image, read_rgba
from .normalize import Normalize, normalize
from .preprocess import Preprocess

__all__ = ["Normalize", "Preprocess", "as_tensor", "normalize", "read_image", "read_rgba"]
