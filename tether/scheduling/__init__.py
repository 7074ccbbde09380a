"""Where jobs go, and whether they are tried again: pure decisions, and the middleware that asks them."""
