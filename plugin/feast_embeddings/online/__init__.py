"""What Feast loads by name: the online store, the engine that materializes, and the file of the registry."""
