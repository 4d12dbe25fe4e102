"""The sides that ``bench.py`` compares: tfm's own, and each of its peers behind the same face."""
