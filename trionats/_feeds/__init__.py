"""The promise: what arrives over time is one channel, opened in the caller's nursery, with every ending.

Lives here: the channel and its feeding task, how the fast paths are paced, how an `open_*` function opens, and which tasks
work on what they received. It may know Trio, `errors` and itself; not what arrives, nor from where.
"""
