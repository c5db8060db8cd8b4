"""Offline: point-in-time joins of vectors, and the differences between two versions."""
