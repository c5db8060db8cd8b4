"""Parts of every search: the direction it takes, whom it leaves out as hidden, what comes back, and why."""
