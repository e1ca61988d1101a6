"""Reading a stream in order: where to resume, what may be asked for, whose stream it is, and whether all that was stored has come."""
