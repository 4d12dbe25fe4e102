"""What programs speak: each module has ``routes(context)``, thin adapters over ``Service``.

``native`` is this project's own; ``libretranslate``, ``deepl`` and ``plugins`` (Immersive
Translate, KISS Translator) are spoken by programs that exist.
"""
