"""Key-value buckets: their configuration, what is done with keys, their watchers, codecs and leases."""
