"""Files: opened so that nobody can make us wait or follow a link, written whole and durable or not at all.

Read `safe_open.py` (files that somebody else may have placed), `write.py` (files of ours), `sealed.py` (remembered
measurements, with a seal). What the bytes mean is left to the callers.
"""
