"""Figures and summaries of any network, from one recorded forward pass."""

from .costs import Part, Summary, summary
from .figure import draw

__all__ = ["Part", "Summary", "draw", "summary"]
