"""Mistakes and dangers in policies, found before a request meets them. Pure: texts in, a report out."""
