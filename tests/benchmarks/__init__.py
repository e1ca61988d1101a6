"""How much a message costs: scenario x client, each in a process of its own, against the same real server.

    python -m tests.benchmarks [--help]

Rules, the same for all clients:

* Payloads and values are 128 bytes, objects 64 MiB in 128 KiB chunks, streams and buckets in the server's memory, so that no disk is
  measured.
* Each run warms up first. The clock (wall, and CPU of the client's process, user and system) begins before the first
  operation and stops at `flush`, or with the N-th message or answer.
* What the client talks to is the server and `peer`, a program of raw sockets in a process of its own, which feeds
  subscriptions and answers requests. It stays at most `WINDOW` messages ahead of the client, which says after every
  `CREDIT` messages how far it is: enough that there is always something to read, and too little for anybody to drop.
* Every client is driven as its documentation shows, with its default limits.
* Runs of different clients take turns, and medians count, so that a noisy minute of the machine hits all of them.
* What was lost is reported: messages that never came, publishes that the server did not see, objects that differ.
"""
