"""Queries of the live version: neighbours, ranking, audiences, vectors by id, visitors."""
