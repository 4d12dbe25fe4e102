"""Two or more systems on one test set: how much they differ, where, and whether by chance."""

from tfm.comparison.compare import Bucket, Comparison, Example, System, compare
from tfm.comparison.report import as_data, html, text

__all__ = ["Bucket", "Comparison", "Example", "System", "as_data", "compare", "html", "text"]
