"""The nouns: frozen values that the other rooms pass to each other. Opens nothing, reads no clock."""
