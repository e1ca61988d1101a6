"""JetStream: its API, acknowledged publishing, streams and consumers, ordered reading, and the stores.

Lives here: what asks the JetStream API, and what is built on it; the order from the ground up is `whereabouts`, `messages`, `api`,
`direct` and `ordered` (a stream read without a consumer, and in order), `management`, `buckets`, `publishing`, `consumers`, then `streams`,
`kv` and `objects`, and above all of them `context`. It uses the seam (`_core.messaging`) and public methods only, so that it runs on any
connection that has them, nats-py's among them.
"""
