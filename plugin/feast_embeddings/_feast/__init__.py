"""All that leans on what Feast does not promise, so that an upgrade of Feast has one place to check."""
