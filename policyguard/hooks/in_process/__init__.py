"""Guards for a block or a call inside the user's own process; advisory, as the user can remove them."""
