"""The scanner against the loaders themselves: `make loaders`. Runs hostile files, in processes that are thrown away."""
