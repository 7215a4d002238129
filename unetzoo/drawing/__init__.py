"""Looking at a network, any network: its figure and its summary, from one forward pass."""

from .costs import Part, Summary, summary
from .figure import draw

__all__ = ["Part", "Summary", "draw", "summary"]
