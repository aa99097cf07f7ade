"""Guards for a block or a call inside the user's own process.

Promises: the block is entered, and the call made, only under an allow. Advisory, as the user can remove them.
"""
