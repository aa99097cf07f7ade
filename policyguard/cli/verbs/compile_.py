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
from policyguard.fs.safe_open import read_bounded
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.policy.bundle import MAX_BUNDLE_BYTES, seal
from policyguard.policy.bundle import cosign as add_signature
from policyguard.policy.files import read_folder
from policyguard.policy_store.folder import grants_of, policy_set_of_sources


@click.command("compile")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@key_option
@click.option("--sign", "more", type=click.Path(path_type=Path), multiple=True, help="Another private key that signs.")
@click.option("--cosign", is_flag=True, help="Add this signature to FILE, if it holds exactly these policies.")
@json_option
def command(
    folder: Path | None, out: Path, key: Path | None, more: tuple[Path, ...], cosign: bool, as_json: bool
) -> None:
    """Compile the policies in FOLDER and sign the snapshot; its digest is the policy digest.

    Where trust demands several persons, the others compile the same folder and add their signatures with --cosign.
    """
    config = author_settings(policies=folder, key=key)
    signer = read_private_key(needed(config, "key"), passphrase=read_passphrase())
    policies = needed(config, "policies")
    sources = read_folder(policies)
    policy_set = policy_set_of_sources(policies, sources)
    compiled = compile_policy(policy_set, grants_of(policy_set))
    signers = [signer, *(read_private_key(file, passphrase=read_passphrase()) for file in more)]
    data = read_bounded(out, MAX_BUNDLE_BYTES) if cosign else seal(compiled, signers)
    for other in signers if cosign else ():
        data = add_signature(data, compiled, other)
    replace_file(out, data)
    digest = policy_digest(compiled)
    say_not_run(policies, sources)
    if as_json:
        say_json({"digest": digest, "epoch": policy_set.epoch, "rules": len(policy_set.rules), "size_bytes": len(data)})
    else:
        say(f"{out}: {len(policy_set.rules)} rules, policy digest {digest}, epoch {policy_set.epoch}")
