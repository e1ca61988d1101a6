"""One driver for each client: the same scenarios, each as that client's documentation shows it."""
