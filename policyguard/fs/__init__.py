"""Files: opened safely against links, FIFOs and other accounts; written completely and durably or not at all.

Read `safe_open.py` (files that others may have placed), `write.py` (our own files), `sealed.py` (cached measurements
with a seal). The meaning of the bytes is left to the callers.
"""
