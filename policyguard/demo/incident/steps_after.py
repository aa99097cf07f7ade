"""Steps 7 to 12: kills, altered weights, reverted edits, the policies, false blame, and two quiet months."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from policyguard.demo.incident.emergency import break_glass
from policyguard.demo.incident.lab import Lab, eventually
from policyguard.demo.incident.running import WATCH_S, Running, entry_of, words_of
from policyguard.demo.incident.story import Story
from policyguard.demo.incident.weights import write_weights
from policyguard.hooks.launcher.start_check import DELAYS_S
from policyguard.policy_store.load import load_snapshot
from policyguard.scan.files import scan_paths
from policyguard.scan.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_files,
    check_follows,
    manifest_of,
    sign_manifest,
)
from policyguard.verify import verify


def kills(lab: Lab, story: Story) -> None:
    story.title("Processes of other people's jobs, killed")
    with Running(lab, "bob", "bob-run", 8).started() as job:
        story.tried("ivan kills bob's running job, through the scheduler")
        for action in ("job:kill", "job:suspend"):
            signed = lab.ask("ivan", action, "job:team/vision/bob-run", owner="user:bob")
            story.denied(f"{action} is denied", signed, "job.not_owner", naming="user:bob")
        story.fact("bob's process is alive", f"pid {job.pid}", Path(f"/proc/{job.pid}").exists())
        story.tried("ivan, on the node itself: kill -9")
        os.kill(job.pid, signal.SIGKILL)
        job.over()
    alert = job.alerts[-1] if job.alerts else None
    seen = alert is not None and alert.decision.reason_codes == ("drift.killed",)
    story.fact("it dies, and the log has a death that nobody decided on", words_of(alert), seen, entry_of(alert))
    signed = lab.ask("carol", "job:kill", "job:team/vision/bob-run", owner="user:bob")
    story.allowed("a lead of the team may, and the owner hears of it", signed, "job.team_lead")
    break_glass(lab, story)


def colleagues_weights(lab: Lab, story: Story) -> None:
    story.title("A colleague's weights, altered and deleted")
    steps = [_step(lab, number) for number in (100, 200, 300)]
    manifests: list[Manifest] = []
    for number, folder in zip((100, 200, 300), steps, strict=True):
        previous = manifests[-1] if manifests else None
        manifests.append(_signed_manifest(lab, folder, number, previous))
    last = steps[-1]
    request, inputs = lab.job("bob", "bob-resume", 8, checkpoints=[last])
    story.allowed("bob resumes from his own signed step", lab.decide(request, inputs), "ok.tier1")
    story.tried("ivan changes some weights of step 300")
    write_weights(last / "weights.pt", (3.0, 3.0, -9.0))
    story.denied("denied; the manifest no longer fits", lab.decide(request, inputs), "ckpt.pickle_untrusted")
    story.refused("the file is named", "V7", lambda: check_files(manifests[-1], last, scan_paths([last])))
    story.tried("ivan deletes step 200, so that step 300 follows step 100")
    story.refused("the chain is broken", "V7", lambda: check_follows(manifests[2], manifests[0]))
    story.tried("another run's identity overwrites bob's steps")
    signed = lab.ask("service:run-1234", "checkpoint:write", "checkpoint:team/vision/bob/300")
    story.denied("denied; who wrote it is not known to be this run", signed, "engine.error")
    write_weights(last / "weights.pt", _values(300))
    story.allowed("restored, bob resumes", lab.decide(request, inputs), "ok.tier1")


SLOW_MACHINE_S = 2.0


def reverted(lab: Lab, story: Story) -> None:
    story.title("Harmless when reviewed, hostile when run, harmless again when checked")
    script = lab.code / "train.py"
    clean = script.read_bytes()
    request, inputs = lab.job("bob", "bob-revert", 8)
    signed = lab.decide(request, inputs)
    story.allowed("bob's job is decided on", signed, "ok.tier1")
    story.tried("ivan edits train.py between the decision and the start")
    script.write_bytes(clean.replace(b"weight = step", b"weight = -step"))
    bound = lab.guard().gather(request, inputs).bound
    story.refused(
        "the worker measures again and does not start it",
        "V7",
        lambda: verify(signed.to_json(), lab.trust, request, audience="local", now=time.time_ns(), bound=bound),
    )
    script.write_bytes(clean)
    story.tried("ivan edits it while the job runs, and puts it back before anybody checks")
    with Running(lab, "bob", "bob-watched", 8).started() as job:
        # Earlier, it would be an edit of what was started; a busy machine takes longer to check that.
        time.sleep(sum(DELAYS_S) + SLOW_MACHINE_S)
        script.write_bytes(clean + b"\nprint('slow')\n")
        eventually(lambda: len(job.alerts) == 1)
        script.write_bytes(clean)
        eventually(lambda: len(job.alerts) == 2)
    for alert, reason, what in zip(
        job.alerts, ("drift.code", "drift.reverted"), ("the edit", "the way back"), strict=False
    ):
        story.denied(f"{what} is in the log", alert, reason)
    story.fact("both were reported", f"{len(job.alerts)} alerts", len(job.alerts) == 2)


def policies(lab: Lab, story: Story) -> None:
    story.title("The one who hears every debugging idea")
    story.tried("ivan reads the policies and publishes one, to see what is checked and to be let through")
    signed = lab.ask("ivan", "policy:publish", "policy:lab/jobs", ticket="CHG-1")
    story.denied("denied", signed, "engine.no_allow")
    explained = lab.decide(*lab.job("ivan", "ivan-512", 512)).decision
    story.fact("a denial tells him no trace of other rules", "no trace", "trace" not in explained.explain())
    story.tried("ivan writes a rule of his own into the policy folder of a login node")
    forged = lab.root / "forged"
    forged.mkdir()
    for file in sorted((lab.root / "policies").glob("*.yaml")):
        text = file.read_text()
        if file.name == "jobs.yaml":
            text = text.replace("resource.gpus > 8\n", "resource.gpus > 800\n")
            text = text.replace(
                "roles: [researcher, lead]\n    actions: [job:submit]",
                "roles: [intern, researcher, lead]\n    actions: [job:submit]",
            )
        (forged / file.name).write_text(text)
    request, inputs = lab.job("ivan", "ivan-128", 128)
    signed = lab.decide(request, inputs, policies=forged)
    bound = lab.guard().gather(request, inputs).bound
    story.fact(
        "decided by it, he would be allowed; that, too, is logged",
        ", ".join(signed.decision.reason_codes),
        signed.decision.allowed,
        signed.receipt.index,
    )
    story.refused(
        "no worker accepts policies whose digest it was not given",
        "V9",
        lambda: verify(signed.to_json(), lab.trust, request, audience="local", now=time.time_ns(), bound=bound),
    )


def blame(lab: Lab, story: Story) -> None:
    story.title("Somebody else is blamed")
    request, inputs = lab.job("alice", "alice-256", 256)
    story.tried("ivan signs an approval in carol's name")
    lab.approve("carol", request, inputs, signer="ivan")
    signed = lab.decide(request, inputs)
    story.denied("denied; a name is whose key signed", signed, "needs-approval", naming="carol-by-ivan")
    story.tried("ivan pushes with `Author: bob` and no signature")
    signed = lab.ask("bob", "repo:push", "repo:team/vision/trainer", ref="refs/heads/fix", signature="none", signer="")
    story.denied("denied; names in commits are claims", signed, "id.unknown_signer")
    story.tried("the commits up to the last one were reviewed before; of that one, two real leads approve")
    (lab.root / "reviewed").write_text(lab.git("rev-parse", "HEAD~1") + "\n")
    lab.approve("carol", request, inputs)
    lab.approve("dan", request, inputs)
    signed = lab.decide(request, inputs)
    story.allowed("allowed; the entry names whose keys approved", signed, "ok.tier3")


def undetected(lab: Lab, story: Story) -> None:
    story.title("Two months undetected")
    clean = lab.optimizer.read_bytes()
    with Running(lab, "bob", "bob-long", 32).started() as job:
        story.tried("ivan edits the installed optimizer while bob's job of 32 GPUs runs")
        time.sleep(3 * WATCH_S)
        lab.optimizer.write_bytes(clean.replace(b"weight - rate", b"weight + rate"))
        ended = job.over()
    lab.optimizer.write_bytes(clean)
    alert = job.alerts[0] if job.alerts else None
    seen = alert is not None and "drift.environment" in alert.decision.reason_codes
    story.fact("the next check finds it; the alert is in the log", words_of(alert), seen, entry_of(alert))
    story.fact("the policy ends such jobs", f"exit status {job.status}", ended and job.status == 77)
    _newer_policies(lab, story)


def _newer_policies(lab: Lab, story: Story) -> None:
    path = lab.root / "policies" / "jobs.yaml"
    stored, published = path.read_text(), [""]
    with Running(lab, "bob", "bob-judged", 32, published=lambda: published[0]).started() as job:
        story.tried("somebody lowers the ceiling in the policy folder while bob's job of 32 GPUs runs")
        path.write_text(stored.replace("resource.gpus < 64 && resource.code", "resource.gpus < 16 && resource.code"))
        eventually(lambda: bool(job.alerts))
        alert = job.alerts[0] if job.alerts else None
        seen = alert is not None and alert.decision.reason_codes == ("drift.policies_unusable",)
        story.fact("reported, and not used: no worker accepts these", words_of(alert), seen, entry_of(alert))
        story.tried("the keepers publish them; workers accept them now")
        published[0] = load_snapshot(lab.root / "policies", ()).policy_digest
        ended = job.over()
    path.write_text(stored)
    alert = job.alerts[-1] if job.alerts else None
    seen = alert is not None and alert.decision.reason_codes == ("drift.policy",)
    story.fact(
        "the running job is judged by them, and ends",
        words_of(alert),
        seen and ended and job.status == 77,
        entry_of(alert),
    )


def _step(lab: Lab, number: int) -> Path:
    folder = lab.root / "runs" / f"step-{number}"
    folder.mkdir(mode=0o755)
    write_weights(folder / "weights.pt", _values(number))
    return folder


def _values(number: int) -> tuple[float, ...]:
    return (1.0, number / 100, 3.0)


def _signed_manifest(lab: Lab, folder: Path, number: int, previous: Manifest | None) -> Manifest:
    manifest = manifest_of(
        folder,
        scan_paths([folder]),
        producer="user:bob",
        run="bob-run",
        step=number,
        now=time.time_ns(),
        previous=previous,
    )
    (folder / MANIFEST_NAME).write_bytes(sign_manifest(manifest, [lab.keys["bob"]]).to_bytes())
    return manifest
