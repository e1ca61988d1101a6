"""JetStream's decisions: what to ask for next, where to resume, which PubAck counts, what an object's info may say."""
