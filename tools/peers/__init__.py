"""The sides that ``bench.py`` compares, tfm and its peers, with a common interface."""
