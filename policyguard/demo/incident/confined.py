"""Step 13: the same attacks from inside a job that is confined and started from its commit; the kernel refuses them."""

from __future__ import annotations

import json
import os
import subprocess

from msgspec import structs

from policyguard.audit.receipt import SignedDecision
from policyguard.confinement.landlock import abi_version
from policyguard.confinement.profile import NOT_BEFORE
from policyguard.demo.incident.lab import Lab
from policyguard.demo.incident.story import Story
from policyguard.demo.incident.weights import write_weights
from policyguard.hooks.launcher.launch import launch

ATTACK = '''\
"""A training job of ivan's that attacks whatever its account can reach."""

import json
import os
import signal
import subprocess
import sys

weights, program, pid = TARGETS


def append():
    with open(weights, "ab") as file:
        file.write(b"changed")


def attempt(action):
    try:
        action()
    except OSError as problem:
        return problem.strerror
    return "succeeded"


outcomes = {
    "write": attempt(append),
    "delete": attempt(lambda: os.remove(weights)),
    "execute": attempt(lambda: subprocess.run([program], check=False)),
    "kill": attempt(lambda: os.kill(pid, signal.SIGKILL)),
    "train.py": attempt(lambda: open("train.py", "ab").close()),
}
with open(sys.argv[1], "w") as file:
    json.dump(outcomes, file)
'''

TRIED = {
    "write": "to change a colleague's checkpoint",
    "delete": "to delete it",
    "execute": "to execute a program from a shared folder",
    "kill": "to kill a colleague's job",
    "train.py": "to change the code that it was started from",
}


def confined(lab: Lab, story: Story) -> None:
    story.title("The same, from inside a job that the kernel confines")
    abi, reason = abi_version()
    if abi < 1:
        story.fact("not shown: this kernel confines nothing", reason, True)
        return
    program = lab.root / "shared" / "tool"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    weights = lab.root / "runs" / "colleague.pt"
    write_weights(weights, (1.0, 2.0, 3.0))
    before = weights.read_bytes()
    with subprocess.Popen(["sleep", "60"]) as colleague:
        # The command line says nothing of this: the job has it in its own committed source.
        source = ATTACK.replace("TARGETS", repr((str(weights), str(program), colleague.pid)))
        (lab.code / "attack.py").write_text(source)
        lab.git("add", "attack.py", who="ivan")
        lab.git("commit", "--quiet", "--message", "a job", who="ivan")
        outcomes, signed = _run(lab)
        story.allowed("ivan's job is allowed, from its commit and confined", signed, "ok.tier1")
        story.tried("the job does what ivan wrote into it")
        for name, what in TRIED.items():
            if name == "kill" and abi < 6:
                story.fact(f"not refused by this kernel, {what}", NOT_BEFORE[6], True)
                continue
            story.fact(f"the kernel refuses {what}", outcomes.get(name, "not tried"), _is_refused(outcomes.get(name)))
        alive = colleague.poll() is None
        story.fact("the colleague's process is alive", f"pid {colleague.pid}", alive or abi < 6)
        colleague.kill()
    story.fact("the checkpoint is unchanged", weights.name, weights.read_bytes() == before)


def _run(lab: Lab) -> tuple[dict[str, str], SignedDecision]:
    out = lab.root / "out" / "ivan-confined"
    out.mkdir()
    request, inputs = lab.job("ivan", "ivan-confined", 8, argv=(lab.python, "attack.py", str(out / "result")))
    inputs = structs.replace(inputs, confine=True, from_commit=True, outputs={"out": str(out)})
    decisions: list[SignedDecision] = []
    launch(lab.guard(), request, inputs, lab.trust, audience="local", on_decision=decisions.append)
    result = out / "result"
    return json.loads(result.read_text()) if result.exists() else {}, decisions[0]


def _is_refused(outcome: str | None) -> bool:
    return outcome in (os.strerror(1), os.strerror(13))
