"""The endpoints and the pages."""
