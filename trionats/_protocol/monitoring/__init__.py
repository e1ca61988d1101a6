"""Monitoring of servers through their system account, without its I/O: what is asked, what the answers say, which pages are missing."""
