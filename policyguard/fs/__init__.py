"""Files: opened safely against links, FIFOs and other accounts; written completely and durably or not at all.

Read `safe_open.py` (files that somebody else may have placed), `write.py` (files of ours), `sealed.py` (remembered
measurements, with a seal). What the bytes mean is left to the callers.
"""
