"""Steps 1 to 6: roles, weights, a startup hook, a patched optimizer, large jobs, an edited framework."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import time
from pathlib import Path

from policyguard.cli.files import write_new
from policyguard.demo.incident.lab import Lab, eventually, run_unguarded
from policyguard.demo.incident.running import Running, entry_of, words_of
from policyguard.demo.incident.story import Story
from policyguard.demo.incident.weights import LOAD, has_torch, write_hostile
from policyguard.environment.bytecode import check_bytecode
from policyguard.environment.listing import list_files
from policyguard.environment.owners import owners_of
from policyguard.environment.report import compare, make_baseline, who_changed
from policyguard.evidence.gpu_grants import sign_grant
from policyguard.values import NANOSECONDS_PER_S, Instant

STEP = "from labtorch.optim import step; print(step(0.0, 1.0))"

DAY = 86_400 * NANOSECONDS_PER_S

ATTACH = """\
import ctypes, sys, time
PTRACE_SEIZE = 0x4206
print("attached" if not ctypes.CDLL(None).ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) else "refused", flush=True)
time.sleep(30)
"""
"""Attaches as a debugger does (ptrace(2))."""

PATCH = "import labtorch.optim as o; p = o.step; o.step = lambda w, g, rate=0.05, p=p: p(w, 0 * g, rate)"
"""A line of a path file; `site` runs lines that begin with `import` at every start of Python."""


def rights(lab: Lab, story: Story) -> None:
    story.title("An intern holds nearly an employee's rights")
    story.tried("ivan, an intern, submits a job of 256 GPUs")
    signed = lab.decide(*lab.job("ivan", "ivan-256", 256))
    story.denied("denied, with the ceiling and who may raise it", signed, "quota.role_ceiling", naming="user:carol")
    story.tried("ivan administers a queue")
    signed = lab.ask("ivan", "queue:administer", "queue:team/vision/prod", ticket="OPS-1")
    story.denied("denied; no rule gives it to an intern", signed, "engine.no_allow")
    story.tried("carol signs him a grant of 64 GPUs until tomorrow; he asks for 64, for 65, and for 64 with an old one")
    now = time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S
    _grant(lab, "grant-1", now - DAY, "carol")
    story.denied("the old one has expired", lab.decide(*lab.job("ivan", "ivan-64", 64)), "grant.expired")
    _grant(lab, "grant-2", now + DAY, "ivan")
    story.denied("one that he signed himself is none", lab.decide(*lab.job("ivan", "ivan-64", 64)), "grant.expired")
    _grant(lab, "grant-3", now + DAY, "carol")
    story.denied("65 are more than 64", lab.decide(*lab.job("ivan", "ivan-65", 65)), "grant.scope")
    story.allowed("64 are allowed", lab.decide(*lab.job("ivan", "ivan-64", 64)), "grant.timeboxed")
    story.allowed("his own small job is allowed", lab.decide(*lab.job("ivan", "ivan-8", 8)), "ok.tier1")
    lab.set_quota(limit=192, used=128)
    signed = lab.decide(*lab.job("alice", "alice-quota", 128))
    story.denied(
        "quota, the motive: a researcher sees limit, use and who raises it",
        signed,
        "quota.team_limit",
        naming="team_limit = 192",
    )
    lab.set_quota(limit=1024, used=128)


def _grant(lab: Lab, name: str, expires: Instant, signer: str) -> None:
    data = sign_grant(grant_id=name, subject="user:ivan", gpus=64, expires=expires, key=lab.keys[signer])
    write_new(lab.root / "grants" / f"{name}.json", data)


def weights(lab: Lab, story: Story) -> None:
    story.title("Code hidden in a shared checkpoint")
    marker, model = lab.root / "out" / "payload-ran", lab.root / "shared" / "model.bin"
    lab.root.joinpath("shared").chmod(0o777)
    write_hostile(model, marker)
    story.tried(
        f"ivan shares model.bin ({'written by torch' if has_torch() else 'the zip format of torch'}), "
        "which runs a command when it is loaded; alice's job names it"
    )
    run_unguarded([sys.executable, "-c", LOAD, str(model)], lab.root)
    story.fact("unguarded, loading it runs the command", "the file it makes is there", marker.exists())
    marker.unlink(missing_ok=True)
    argv = (lab.python, "-c", LOAD, str(model))
    signed = lab.decide(*lab.job("alice", "alice-resume", 1, argv=argv, checkpoints=[model]))
    story.denied("denied, whatever the size of the job", signed, "ckpt.hostile", "ckpt.pickle_untrusted")
    story.fact(
        "the imports are in the evidence",
        _globals(signed.decision.facts.bound),
        "system" in _globals(signed.decision.facts.bound),
        signed.receipt.index,
    )
    story.tried("the same bytes renamed to model.safetensors, only as an argument")
    renamed = model.with_suffix(".safetensors")
    model.rename(renamed)
    signed = lab.decide(*lab.job("alice", "alice-resume", 1, argv=(lab.python, "-c", LOAD, str(renamed))))
    story.denied("denied; content decides, not the name", signed, "ckpt.format_spoof")
    story.fact("nothing ran", "no such file", not marker.exists())


def backdoor(lab: Lab, story: Story) -> None:
    story.title("A way back in")
    story.tried("ivan executes a command in bob's running job")
    signed = lab.ask("ivan", "job:exec", "job:team/vision/bob-1", owner="user:bob")
    story.denied(
        "denied; the owner comes from the scheduler, not from a label", signed, "job.not_owner", naming="user:bob"
    )
    story.tried("ivan's login left LD_PRELOAD and PYTHONSTARTUP in alice's shell")
    request, inputs = lab.job("alice", "alice-1", 1, LD_PRELOAD="/tmp/.x.so", PYTHONSTARTUP="/tmp/.x.py")
    story.denied(
        "denied; the variables are named", lab.decide(request, inputs), "env.code_injection", naming="LD_PRELOAD"
    )


def patch(lab: Lab, story: Story) -> None:
    story.title("The optimizer of others, patched at run time")
    hook_file = lab.site / "zz_speedup.pth"
    hook_file.write_text(PATCH + "\n")
    story.tried(
        "ivan drops zz_speedup.pth into the shared environment; it patches the optimizer of every program there"
    )
    text = run_unguarded([lab.python, "-c", STEP], lab.root)
    story.fact("unguarded, nothing is learned any more", f"step(0, 1) is {text.strip()}", text.strip() == "0.0")
    signed = lab.decide(*lab.job("bob", "bob-64", 64))
    story.denied("a job of 64 GPUs is denied", signed, "env.autorun_unowned", naming="zz_speedup.pth")
    signed = lab.decide(*lab.job("bob", "bob-8", 8))
    story.allowed("a small job may run, and its owner is warned", signed, "ok.tier1", "warn.autorun_unowned")
    hook_file.unlink()
    story.allowed("without it the job is allowed", lab.decide(*lab.job("bob", "bob-64", 64)), "ok.tier2")
    _in_memory(lab, story)


def _in_memory(lab: Lab, story: Story) -> None:
    with Running(lab, "bob", "bob-patched", 8).started() as job:
        story.tried("ivan attaches a debugger to bob's running process, to patch it in memory")
        with subprocess.Popen([sys.executable, "-c", ATTACH, str(job.pid)], stdout=subprocess.PIPE) as debugger:
            attached = debugger.stdout is not None and debugger.stdout.readline().strip() == b"attached"
            eventually(lambda: not attached or bool(job.alerts))
            debugger.kill()
    alert = job.alerts[-1] if job.alerts else None
    seen = alert is not None and alert.decision.reason_codes == ("drift.process",)
    if attached:
        story.fact("who was attached is in the log, also when he has gone", words_of(alert), seen, entry_of(alert))
    else:
        story.fact("the kernel does not let him", "ptrace: not permitted", alert is None)


def scale(lab: Lab, story: Story) -> None:
    story.title("A trigger that only large jobs pull")
    (lab.code / "train.py").open("a").write("\n# more cards, more speed\n")
    lab.commit("faster\n\nCo-authored-by: carol <carol@lab.example>")
    request, inputs = lab.job("alice", "alice-512", 512)
    story.tried("alice asks for 512 GPUs; carol, who wrote a part of the commit, approves, and so does dan")
    lab.approve("carol", request, inputs)
    lab.approve("dan", request, inputs)
    signed = lab.decide(request, inputs)
    story.denied("denied; who contributed does not approve", signed, "sod.approver_is_contributor", naming="user:carol")
    story.tried("dan's approval of 8 GPUs is shown for 512")
    lab.approve("dan", *lab.job("alice", "alice-512", 8), gpus=8)
    signed = lab.decide(*lab.job("alice", "alice-512", 768))
    story.denied("denied; an approval carries no further than it says", signed, "needs-approval", naming="over_limit")
    (lab.code / "train.py").open("a").write("# by alice alone\n")
    lab.commit("alone")
    story.tried("another tree than the one that was approved")
    signed = lab.decide(request, inputs)
    story.denied(
        "denied; approvals are bound to the tree that is there", signed, "bind.tree_mismatch", naming="other_tree"
    )


def framework(lab: Lab, story: Story) -> None:
    story.title("The framework itself, edited on the cluster")
    clean = lab.optimizer.read_bytes()
    lab.optimizer.write_bytes(clean.replace(b"weight - rate", b"weight + rate"))
    lab.write_record()
    story.tried("ivan edits the installed labtorch/optim.py and rewrites its line in RECORD")
    listing = list_files(str(lab.environment))
    record_only = compare(
        listing, owners_of(str(lab.environment), listing.files), None, check_bytecode(listing, {}, {})
    )
    story.fact("by its own RECORD the environment is unchanged", "nothing differs", not record_only.unlike_record)
    signed = lab.decide(*lab.job("bob", "bob-64", 64))
    story.denied("against the build's signed baseline it does not", signed, "env.tampered", naming="labtorch/optim.py")
    signed = lab.decide(*lab.job("alice", "alice-1", 1))
    story.denied("nor for the smallest job", signed, "env.tampered", naming="labtorch/optim.py")
    name = os.path.relpath(lab.optimizer, lab.environment)
    who = who_changed(str(lab.environment), name)
    story.fact("the file's owner and time are named", f"{name}: {who}", "owned by" in who, signed.receipt.index)
    story.tried("ivan signs a baseline of his own")
    baseline = lab.root / "baseline.json"
    stored = baseline.read_bytes()
    _sign_as(lab, baseline, "ivan")
    signed = lab.decide(*lab.job("bob", "bob-64", 64))
    story.denied("denied; only the build's key makes a baseline", signed, "engine.error", naming="baseline")
    baseline.write_bytes(stored)
    lab.optimizer.write_bytes(clean)
    lab.write_record()
    _bytecode(lab, story)
    story.allowed(
        "put back, the job is allowed; the entries above stay", lab.decide(*lab.job("bob", "bob-64", 64)), "ok.tier2"
    )


def _bytecode(lab: Lab, story: Story) -> None:
    """Make the same edit in byte code, under a header that fits the unchanged source."""
    before = run_unguarded([lab.python, "-c", STEP], lab.root).strip()
    cached = next(lab.optimizer.parent.glob("__pycache__/optim.*.pyc"))
    story.allowed(
        "byte code that Python wrote itself is no drift", lab.decide(*lab.job("bob", "bob-64", 64)), "ok.tier2"
    )
    evil = compile(lab.optimizer.read_bytes().replace(b"weight - rate", b"weight + rate"), str(lab.optimizer), "exec")
    cached.write_bytes(cached.read_bytes()[:16] + marshal.dumps(evil))
    after = run_unguarded([lab.python, "-c", STEP], lab.root).strip()
    story.tried("ivan leaves every source as it is and exchanges the byte code of the optimizer behind its header")
    story.fact(
        "unguarded, it runs in place of the source",
        f"step(0, 1) was {before} and is {after}",
        (before, after) == ("-0.05", "0.05"),
    )
    signed = lab.decide(*lab.job("bob", "bob-64", 64))
    story.denied("compared with its source it is another code", signed, "env.tampered", naming=cached.name)
    cached.unlink()


def _sign_as(lab: Lab, path: Path, who: str) -> None:
    path.write_bytes(make_baseline(list_files(str(lab.environment)), [lab.keys[who]]))


def _globals(bound: object) -> str:
    records = bound["resource.checkpoints"] if isinstance(bound, dict) else ()
    return ", ".join(name for record in records for name in record["pickle_globals"])
