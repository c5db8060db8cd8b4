"""Trained models that encode columns of content: where their files are, and their libraries."""
