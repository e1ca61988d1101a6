"""Key-value buckets: what keys may be, what a message says of one, and what a lease decides."""
