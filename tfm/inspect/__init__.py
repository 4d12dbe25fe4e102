"""Every step of one sentence through a model, as data and as a page.

``trace(model, sentence)`` records everything, ``page`` makes one HTML file of it, ``as_data`` plain
dicts and lists. ``align`` tells which source piece each piece of a translation comes from, and
``annotate`` how likely each is too.
"""

from tfm.inspect.alignment import align
from tfm.inspect.annotation import annotate
from tfm.inspect.report import as_data, page
from tfm.inspect.trace import Trace, trace

__all__ = ["Trace", "align", "annotate", "as_data", "page", "trace"]
