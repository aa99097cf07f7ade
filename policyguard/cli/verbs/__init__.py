"""One file, or one folder, for each verb of the command line; each defines `command`."""
