"""Which of several trainers, or versions, ranks best, at what cost, and by more than chance."""
