"""The families of models by the ``model_type`` of their config.json."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tfm.interop.huggingface import bart, m2m_100, marian, mbart, names, pegasus, t5
from tfm.interop.huggingface.names import Tables
from tfm.interop.mapping import Entry
from tfm.transformer import Architecture


class Family(NamedTuple):
    """What a family's models look like.

    Attributes:
      fields: config.json → fields of the architecture besides vocabularies, tie and start.
      entries: the table of its tensors.
      tables: the names that its embeddings may have.
      kind: the class that reads it, in config.json.
    """

    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    entries: Callable[[Architecture], Iterable[Entry]]
    tables: Tables
    kind: str


FAMILIES: dict[str, Family] = {
    "marian": Family(marian.fields, marian.entries, names.BART_TABLES, "MarianMTModel"),
    "pegasus": Family(
        pegasus.fields, pegasus.entries, names.BART_TABLES, "PegasusForConditionalGeneration"
    ),
    "bart": Family(bart.fields, bart.entries, names.BART_TABLES, "BartForConditionalGeneration"),
    "mbart": Family(mbart.fields, bart.entries, names.BART_TABLES, "MBartForConditionalGeneration"),
    "m2m_100": Family(
        m2m_100.fields, m2m_100.entries, names.BART_TABLES, "M2M100ForConditionalGeneration"
    ),
    "t5": Family(t5.fields, names.t5, names.T5_TABLES, "T5ForConditionalGeneration"),
    "mt5": Family(t5.fields_mt5, names.t5, names.T5_TABLES, "MT5ForConditionalGeneration"),
}
