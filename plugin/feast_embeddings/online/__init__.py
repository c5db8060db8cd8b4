"""The parts that Feast loads by name: the online store, the compute engine, and the registry file store."""
