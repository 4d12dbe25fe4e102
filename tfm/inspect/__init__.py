"""A look inside: what happened to one sentence, as data and as a page.

``trace(model, sentence)`` keeps everything, ``page`` makes one HTML file of it, ``as_data`` plain
dicts and lists. ``align`` tells which piece of a translation comes from where.
"""

from tfm.inspect.alignment import align
from tfm.inspect.report import as_data, page
from tfm.inspect.trace import Trace, trace

__all__ = ["Trace", "align", "as_data", "page", "trace"]
