"""Qdrant, in this process or on a server, behind one interface. Independent of Feast."""
