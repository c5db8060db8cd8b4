"""Qdrant, in this process or on a server, behind one interface. Nothing here knows Feast."""
