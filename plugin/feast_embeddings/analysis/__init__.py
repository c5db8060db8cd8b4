"""A look at the live vectors: one id, segments, maps, and why two are near.

Stability: provisional, see docs/compatibility.md.
"""
