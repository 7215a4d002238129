"""From a network to answers: pictures of any size, and files."""

from .optimized import optimize
from .predictor import Predictor
from .tiling import predict

__all__ = ["Predictor", "optimize", "predict"]
