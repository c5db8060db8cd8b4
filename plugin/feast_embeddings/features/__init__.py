"""Vectors as columns of a feature matrix, by a transformer for scikit-learn."""
