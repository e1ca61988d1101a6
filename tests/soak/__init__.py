"""What has to hold for longer than a test may take: `python -m tests.soak`. A short version of each runs with the tests."""
