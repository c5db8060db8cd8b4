"""From a version on disk to the live one: load, verify, switch; and back."""
