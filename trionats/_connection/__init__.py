"""Bytes to a server and back, kept alive.

Lives here: dialling, TLS and WebSockets, who we are, one attempt to get in, one session while it lasts, the planned
migration to another server, and the supervisor that begins the next one. It may know the cellar (`_protocol`), `_feeds`
and Trio; not messages, requests or who subscribed.
"""
