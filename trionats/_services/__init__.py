"""Services (ADR-32): what responds to requests, tells who it is, and counts what it does; and who finds such.

They need no JetStream.
"""
