"""The lint rules: one module for each, listed by `lint/catalogue.py`. `lint/rule.py` says what a module declares."""
