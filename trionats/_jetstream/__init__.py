"""JetStream: its API, acknowledged publishing, streams and consumers, ordered reading, and the stores.

Lives here: what asks the JetStream API, and what is built on it; the order from the ground up is `whereabouts`, `messages`, `api`,
`ordered` (a stream in order, for whoever reads), `management`, `publishing`, `consumers`, `streams`, `watcher`, `objects`, and above all of
them `context`. It uses the seam (`_core.messaging`) and public methods only, so that it runs on any connection that has them,
nats-py's among them.
"""
