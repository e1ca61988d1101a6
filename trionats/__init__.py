"""A Trio structured-concurrency client for NATS."""
