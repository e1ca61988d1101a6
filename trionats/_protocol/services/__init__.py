"""Services (ADR-32) without their I/O: what they are called, what they answer, what they count, and how they end."""
