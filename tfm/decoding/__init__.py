"""Search for the best target sentence over a step callback; knows no model."""
