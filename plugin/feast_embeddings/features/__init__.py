"""Vectors as columns of a feature matrix: a transformer for scikit-learn."""
