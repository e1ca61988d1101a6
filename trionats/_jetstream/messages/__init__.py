"""Messages that consumers deliver: what is said of them, who delivered them, and how they are given back.

Lives here what knows a message and its consumer's life, and nothing of how it was asked for. It uses the seam only.
"""
