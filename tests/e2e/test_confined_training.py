"""Training under `--confine --from-commit`: shared memory, worker processes, and two ranks if torch is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.evidence.collector import JobInputs
from policyguard.hooks.launcher.launch import launch
from tests.attacks.test_start_from_commit import guard_of
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request

pytestmark = pytest.mark.skipif(abi_version()[0] < 1, reason=f"Landlock is needed: {abi_version()}")

TORCH_PYTHON = os.environ.get("POLICYGUARD_TORCH_PYTHON", sys.executable)
"""The interpreter of an environment with torch."""

WORKERS = """\
import multiprocessing, sys
from multiprocessing import shared_memory


def square(name, index):
    memory = shared_memory.SharedMemory(name)
    memory.buf[index] = index * index
    memory.close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    memory = shared_memory.SharedMemory(create=True, size=4096)
    with multiprocessing.Pool(4) as pool:
        pool.starmap(square, [(memory.name, index) for index in range(10)])
    with open(sys.argv[1], "w") as file:
        file.write(str(list(memory.buf[:10])))
    memory.unlink()
"""

TRAIN = """\
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    x = torch.arange(64.0).reshape(64, 1) / 64
    data = TensorDataset(x, 3 * x)
    loader = DataLoader(data, batch_size=8, num_workers=2, sampler=DistributedSampler(data))
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(20):
        for inputs, targets in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
    if dist.get_rank() == 0:
        torch.save(model.module.state_dict(), sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    (lab.job / "workers.py").write_text(WORKERS)
    (lab.job / "train.py").write_text(TRAIN)
    commit_all(lab.job)
    (tmp_path / "out").mkdir()
    return lab


def run(lab: Lab, *argv: str) -> Path:
    """Run a job that writes to its only output, confined and from its commit, and return what it wrote."""
    out = lab.folder / "out"
    job = JobInputs(
        argv=argv,
        directory=str(lab.job),
        environment={"PATH": os.defpath, "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"},
        confine=True,
        from_commit=True,
        outputs={"out": str(out)},
    )
    with guard_of(lab) as guard:
        assert launch(guard, request(), job, lab.trust, audience="node-1") == 0
    return out / "result"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_share_memory(lab: Lab, method: str) -> None:
    result = run(lab, sys.executable, "workers.py", "{output:out}/result", method)
    assert result.read_text() == str([index * index for index in range(10)])


def test_two_ranks_train_with_gloo_and_data_loader_workers(lab: Lab) -> None:
    """DDP on the CPU, started by torchrun; the loaders' workers pass tensors through /dev/shm."""
    found = subprocess.run([TORCH_PYTHON, "-c", "import torch"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{TORCH_PYTHON} has no torch; POLICYGUARD_TORCH_PYTHON names an interpreter that has it")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    result = run(lab, TORCH_PYTHON, *torchrun, "train.py", "{output:out}/result")
    script = f"import torch; print(round(float(torch.load({str(result)!r})['weight']), 1))"
    ended = subprocess.run([TORCH_PYTHON, "-c", script], capture_output=True, check=True)
    assert ended.stdout == b"3.0\n"
