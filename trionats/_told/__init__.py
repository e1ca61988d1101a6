"""What servers say, read into values that are kept: times, and frozen dataclasses of their JSON.

It knows nothing of the package: the public dataclasses are made with it.
"""
