"""The commands `train`, `evaluate` and `profile`, and the options that they share."""
