"""Commands that change live versions or files without a training."""
