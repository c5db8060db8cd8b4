"""Parts of every search: the direction it takes, whom it leaves out as hidden, and which attributes come back."""
