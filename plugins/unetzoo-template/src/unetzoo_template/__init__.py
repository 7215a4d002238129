"""A plugin for unetzoo: a network, a loss, a metric, a dataset and a recipe."""
