"""Adapters: tfm inside models of other frameworks, and file formats of other projects."""
