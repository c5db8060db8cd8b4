"""Qdrant's own code in this process, on a folder that processes share."""
