"""Object stores: their buckets, the infos of objects, their chunks in and out, and their watchers.

It may know JetStream's rooms beside this folder, except for the context, which stands above the stores.
"""
