"""How keys are held, from the command line: `init` says it in trust, workers judge by it, the doctor warns."""

from __future__ import annotations

from tests.e2e.cli_lab import CliLab


def test_a_worker_that_wants_a_service_refuses_the_decision_of_a_local_lab(lab: CliLab) -> None:
    """`init` accepts its own form in trust and says so; without that line the same decision starts nothing."""
    words = ("verify", "signed.json", "--request", "requests/allowed.json")
    assert lab.here("decide", "--out", "signed.json", "requests/allowed.json").code == 0
    assert lab.here(*words).code == 0
    assert "enforces nothing on accounts that can read the key" in lab.here("doctor").out
    text = lab.path("trust.yaml").read_text()
    lab.path("trust.yaml").write_text(text.replace("selfIssued: accept\n", ""))
    refused = lab.here(*words)
    assert (refused.code, refused.complaint[:17]) == (77, "policyguard: V10:")
    ill = lab.here("doctor")
    assert (ill.code, "workers will refuse its decisions at V10" in ill.out) == (1, True)
    lab.path("trust.yaml").write_text(text.replace("heldBy: self ", "heldBy: service ").replace("selfIssued: a", "#"))
    assert lab.here(*words).code == 0
    assert "this account can read it" in lab.here("doctor").out


def test_a_trust_file_of_the_release_before_counts_and_the_doctor_names_the_line_to_add(lab: CliLab) -> None:
    lines = [
        line for line in lab.path("trust.yaml").read_text().splitlines() if "heldBy" not in line and "selfI" not in line
    ]
    lab.path("trust.yaml").write_text("\n".join(lines) + "\n")
    assert lab.here("decide", "--out", "signed.json", "requests/allowed.json").code == 0
    assert lab.here("verify", "signed.json", "--request", "requests/allowed.json").code == 0
    ended = lab.here("doctor")
    assert (ended.code, "add `selfIssued: accept` to keep that" in ended.out) == (0, True)
