"""Everything that depends on Feast's private API, so that an upgrade of Feast has one place to check."""
