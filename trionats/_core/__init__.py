"""What a client is made of, and the seam (`messaging`) to what is built on it.

Lives here: messages, frames, requests, attachments, draining, deadlines, and what is known of a client. It may know
everything below; not JetStream, and not the class `Client`, which is put together from this above.
"""
