"""Bytes to a server and back, kept alive.

Lives here: the options, who we are, TLS and WebSockets, dialling and the wire that comes of it, one attempt to get in, one
session while it lasts, the planned migration to another server, and the supervisor that begins the next session. It may
know the cellar (`_protocol`), `_feeds` and Trio; not messages, requests or who subscribed.
"""
