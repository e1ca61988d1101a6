"""The command line: what `python -m trionats` runs. It is a user, and knows public names only."""
