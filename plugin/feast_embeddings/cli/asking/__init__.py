"""Commands that ask the live version: one id, many users, everything."""
