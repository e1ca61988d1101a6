"""Object stores: the names and streams of buckets, transfers into them, the infos of objects, their chunks in and out.

It may know JetStream's rooms beside this folder, except for the context, which stands above the stores.
"""
