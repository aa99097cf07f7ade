"""`policyguard compile DIR -o FILE`: write one signed snapshot, which hooks load without yaml, casbin or CEL."""

from __future__ import annotations

from pathlib import Path

import click

from policyguard.cli.files import replace_file
from policyguard.cli.options import json_option, key_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import author_settings, needed
from policyguard.cli.tests_not_run import say_not_run
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.policy.bundle import seal
from policyguard.policy.files import read_folder
from policyguard.policy_store.folder import grants_of, policy_set_of_sources


@click.command("compile")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@key_option
@json_option
def command(folder: Path | None, out: Path, key: Path | None, as_json: bool) -> None:
    """Compile the policies in FOLDER and sign the snapshot; its digest is the policy digest."""
    config = author_settings(policies=folder, key=key)
    signer = read_private_key(needed(config, "key"), passphrase=read_passphrase())
    policies = needed(config, "policies")
    sources = read_folder(policies)
    policy_set = policy_set_of_sources(policies, sources)
    compiled = compile_policy(policy_set, grants_of(policy_set))
    data = seal(compiled, [signer])
    replace_file(out, data)
    digest = policy_digest(compiled)
    say_not_run(policies, sources)
    if as_json:
        say_json({"digest": digest, "epoch": policy_set.epoch, "rules": len(policy_set.rules), "size_bytes": len(data)})
    else:
        say(f"{out}: {len(policy_set.rules)} rules, policy digest {digest}, epoch {policy_set.epoch}")
