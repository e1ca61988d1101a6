"""The cellar: everything that decides, and nothing that waits: no trio, no asyncio, no socket, no clock."""
