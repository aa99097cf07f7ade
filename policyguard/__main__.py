"""`python -m policyguard` is the command line."""

from policyguard.cli.main import main

main()
