"""Datasets for unetzoo from the annotation files of labeling tools."""
