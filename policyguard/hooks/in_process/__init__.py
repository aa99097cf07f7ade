"""Guards for a block or a call inside the user's own process.

Promises: the block or call runs only under an allow. Advisory, because users can remove it.
"""
