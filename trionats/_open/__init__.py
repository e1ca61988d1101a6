"""What programs open, one room an `open_*`: each makes a feed, in the nursery that it is given, of what lives below.

It may know everything but the face of the package. `open_client` and `open_lease` stand with what they open.
"""
