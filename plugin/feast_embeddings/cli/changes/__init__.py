"""Commands that change what is live or on disk without a training."""
