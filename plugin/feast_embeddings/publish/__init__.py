"""Make a version on disk live: load, verify, switch; and roll back."""
