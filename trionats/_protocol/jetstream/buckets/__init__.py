"""Buckets of either kind, as the streams that they are: names, configurations, and where a mirror's messages come from."""
