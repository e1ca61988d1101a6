"""Reading a stream in order: from the stream (`source`), by way of what a store's entries are (`entries`), to lists and watchers."""
