"""Conversion between the values of Feast and the points of Qdrant."""
