"""Jobs that claim fewer GPUs than they start: `resource.gpus` is the largest number that anything says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.processes import is_supported
from policyguard.evidence.repository import RepositoryCollector
from policyguard.evidence.running_scale import running_scale
from policyguard.evidence.scale import GPUS, ScaleCollector
from policyguard.guard import Guard
from policyguard.hooks.watch.growth import JobGrowth
from policyguard.hooks.watch.processes import JobProcesses
from policyguard.model.facts import Assurance, Facts
from policyguard.model.request import Request
from tests.e2e.launcher_lab import make_lab, request


def measured(
    argv: str | list[str],
    *,
    claims: int | None = 8,
    folder: Path = Path("/"),
    devices: str = "/nonexistent",
    **more: str,
) -> Facts:
    properties: dict[str, Any] = {} if claims is None else {"gpus": claims}
    request = Request.of("user:ivan", "job:submit", "job:team/vision/run-17", **properties)
    inputs = JobInputs(
        argv=tuple(argv.split() if isinstance(argv, str) else argv),
        directory=str(folder),
        environment={"PATH": os.defpath, **more},
    )
    return gather(request, [ScaleCollector(devices)], inputs, lambda: 1)


def gpus(argv: str | list[str], **options: object) -> object:
    facts = measured(argv, **options)  # type: ignore[arg-type]
    if GPUS in facts.missing:
        return facts.missing[GPUS]
    fact = facts.entries[GPUS]
    assert (fact.assurance, fact.bound) == (Assurance.MEASURED, True)
    return fact.value


COMMANDS = [
    ("torchrun --nnodes 64 --nproc-per-node 8 train.py", 512),
    ("torchrun --nnodes=1:64 --nproc_per_node=8 train.py", 512),
    ("torchrun --nn 64 --nproc 8 train.py", 512),
    ("/opt/env/bin/torchrun --nnodes 64 --nproc-per-node 8 train.py", 512),
    ("python -m torch.distributed.run --nnodes 64 --nproc-per-node 8 train.py", 512),
    ("python -mtorch.distributed.launch --nnodes 64 --nproc_per_node=8 train.py", 512),
    ("torchrun --unknown-option 1 --nnodes 64 --nproc 8 train.py", 512),
    ("nohup env A=1 nice -n 5 torchrun --nnodes 64 --nproc 8 train.py", 512),
    ("accelerate launch --num_processes 512 train.py", 512),
    ("accelerate launch --num_machines 64 --gpu_ids 0,1,2,3,4,5,6,7 train.py", 512),
    ("deepspeed --num_nodes 64 --num_gpus 8 train.py", 512),
    ("horovodrun -np 512 python train.py", 512),
    ("mpirun -np 512 python train.py", 512),
    ("mpirun --mca btl tcp -n 512 python train.py", 512),
    ("mpirun -H a:256,b:256 python train.py", 512),
    ("mpirun --map-by ppr:8:node -np 512 python train.py", 512),
    ("srun -N 64 --gpus-per-node=8 python train.py", 512),
    ("srun -N64 -n64 --gres=gpu:a100:8 python train.py", 512),
    ("srun --nodes=2-64 --gres=gpu:8(S:0-1),shard:4 python train.py", 512),
    ("srun --gpus a100:256,h100:256 python train.py", 512),
    ("srun -n 512 --gpus-per-task=1 python train.py", 512),
    ("srun -n 64 --ntasks-per-node=1 --gpus-per-node 8 python train.py", 512),
    ("srun -n 64 --ntasks-per-node=1 torchrun --nproc-per-node 8 train.py", 512),
    ("sbatch --array=0-63%8 --gres=gpu:8 run.sh", 512),
    ("srun --export=ALL,WORLD_SIZE=512 python train.py", 512),
    ("env WORLD_SIZE=512 python train.py", 512),
    ("python train.py trainer.devices=8 +trainer.num_nodes=64", 512),
    ("python train.py --trainer.devices 8 --trainer.num_nodes 64", 512),
    ("python train.py --gpus 0 1 2 3 4 5 6 7 --num-nodes 64", 512),
    ("python train.py trainer={devices:8,num_nodes:64}", 512),
    ("python train.py devices=[0,1,2,3,4,5,6,7] num_nodes=64", 512),
    ("python train.py --nodes 64 --gpus-per-node 8", 512),
    ("python train.py --nodes=64 --gpus_per_node=8", 512),
    ("python train.py trainer.nodes=64 trainer.devices=8", 512),
    ("python train.py --nnode 64 --num-gpu 8", 512),
    ("python train.py --num-hosts 64 --gpus-per-host 8", 512),
    ("python launch.py --nodes 64 --tasks-per-node 8", 512),
    ("python launch.py --ntasks 64 --gpus-per-task 8", 512),
    ("python train.py --total-num-gpus 512", 512),
    ("python train.py --tensor-model-parallel-size 8 --pipeline-model-parallel-size 64", 512),
    ("python serve.py --tensor-parallel-size=8 --pipeline-parallel-size=8 --data-parallel-size=8", 512),
    ("python train.py --tp-size 8 --dp-size -1 --nodes 64 --devices 8", 512),
    ("env NUM_NODES=64 GPUS_PER_NODE=8 python train.py", 512),
    (["bash", "-c", "python train.py --nodes 64 --gpus-per-node 8"], 512),
    (["bash", "-c", "cd /x && exec torchrun --nnodes 64 --nproc-per-node 8 train.py"], 512),
    (["bash", "-c", "N=64; torchrun --nnodes=$N --nproc-per-node ${G:-8} train.py"], 512),
    (["bash", "-c", "export WORLD_SIZE='512'; python train.py"], 512),
    (["bash", "-c", "torchrun --nproc 8 a.py & torchrun --nproc 8 b.py"], 16),
]


@pytest.mark.parametrize(("argv", "number"), COMMANDS, ids=[str(row[0]) for row in COMMANDS])
def test_eight_claimed_and_more_started(argv: str | list[str], number: int) -> None:
    assert gpus(argv) == number
    # The twin: the same number, claimed.
    assert gpus(argv, claims=number) == number
    # And without a claim.
    assert gpus(argv, claims=None) == number


ENVIRONMENTS = [
    ({"WORLD_SIZE": "512"}, 512),
    ({"PET_NNODES": "64", "PET_NPROC_PER_NODE": "8"}, 512),
    ({"PET_NNODES": "1:64", "LOCAL_WORLD_SIZE": "8"}, 512),
    ({"SLURM_GPUS": "512"}, 512),
    ({"SLURM_GPUS": "a100:512"}, 512),
    ({"SLURM_JOB_NUM_NODES": "64", "SLURM_GPUS_ON_NODE": "8"}, 512),
    ({"SLURM_NNODES": "64", "SLURM_JOB_GPUS": "0,1,2,3,4,5,6,7"}, 512),
    ({"SLURM_NNODES": "64", "SLURM_GPUS_PER_NODE": "a100:8"}, 512),
    ({"SLURM_NTASKS": "512"}, 512),
    ({"SLURM_STEP_NUM_TASKS": "512"}, 512),
    ({"SLURM_NTASKS": "64", "SLURM_GPUS_PER_TASK": "8"}, 512),
    ({"OMPI_COMM_WORLD_SIZE": "512"}, 512),
    ({"FLUX_JOB_SIZE": "512"}, 512),
    ({"PBS_NUM_NODES": "64", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, 512),
    ({"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(16)))}, 16),
    ({"NVIDIA_VISIBLE_DEVICES": "0-15"}, 16),
    ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c,MIG-GPU-1/2/3"}, 8),
    ({"CUDA_VISIBLE_DEVICES": "-1", "NVIDIA_VISIBLE_DEVICES": "void"}, 8),
    ({"NVIDIA_VISIBLE_DEVICES": "all"}, 8),
]


@pytest.mark.parametrize(("environment", "number"), ENVIRONMENTS)
def test_what_variables_say_counts(environment: dict[str, str], number: int) -> None:
    assert gpus("python train.py", **environment) == number
    assert gpus("python train.py") == 8


UNREADABLE = [
    "torchrun --nnodes=$(hostname) --nproc-per-node 8 train.py",
    "torchrun --nnodes 0x40 train.py",
    "torchrun --nnodes 6_4 train.py",
    "torchrun --nnodes=-1 train.py",
    "torchrun --nnodes ６４ train.py",
    "torchrun --nnodes +64 train.py",
    "torchrun --nnodes 99999999999999999999 train.py",
    "torchrun --nnodes 9000000 train.py",
    "torchrun --nproc-per-node gpu train.py",
    "torchrun --nproc-per-node=auto train.py",
    "torchrun --nnodes= train.py",
    "srun -N 1k python train.py",
    "srun --gpus-per-socket 4 python train.py",
    "deepspeed --hostfile /nonexistent/hosts train.py",
    "python train.py trainer.devices=8.0",
    "python train.py trainer.devices=${oc.env:N}",
    "python train.py --trainer.num_nodes 1e2",
    "python train.py --nodes $(hostname)",
    "python train.py --nodes=0x40",
    "python train.py --tensor-parallel-size 0x8",
]


@pytest.mark.parametrize("argv", UNREADABLE)
def test_a_number_that_cannot_be_read_is_never_a_smaller_one(argv: str) -> None:
    reason = gpus(argv)
    assert isinstance(reason, str)
    assert "expected" in reason
    assert "the request's own claim does not count" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "environment", [{"WORLD_SIZE": "0x200"}, {"SLURM_NNODES": "64;"}, {"CUDA_VISIBLE_DEVICES": "$X"}]
)
def test_a_variable_that_cannot_be_read_is_never_a_smaller_number(environment: dict[str, str]) -> None:
    assert isinstance(gpus("python train.py", **environment), str)


@pytest.mark.parametrize(
    "text",
    [
        "for i in $(seq 64); do torchrun --nproc 8 train.py & done",
        "seq 64 | xargs -P 64 -I N torchrun --nproc 8 train.py",
        "torchrun --nnodes $NODES --nproc 8 train.py",
    ],
)
def test_a_launcher_in_a_loop_is_no_number(text: str) -> None:
    assert isinstance(gpus(["bash", "-c", text]), str)
    assert gpus(["bash", "-c", "for i in 1 2; do echo $i; done; torchrun --nproc 8 train.py"]) == 8


@pytest.mark.parametrize("claim", [-1, 10**7, True, "8"])
def test_a_claim_that_is_no_number_of_gpus_is_none(claim: int) -> None:
    """To some frameworks -1 means all."""
    assert isinstance(gpus("python train.py", claims=claim), str)
    assert gpus("python train.py", claims=0) == 0


def test_a_job_that_says_no_number_has_none() -> None:
    assert "expected `properties: {gpus: 1}`" in str(gpus("python train.py", claims=None))


def test_the_source_of_the_number_is_printed() -> None:
    fact = measured("torchrun --nnodes 64 --nproc-per-node 8 train.py").entries[GPUS]
    assert fact.source == "scale: torchrun --nnodes 64 x torchrun --nproc-per-node 8"
    assert measured("python train.py").entries[GPUS].source == "scale: request"


def test_as_many_as_the_machine_has(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    command = "torchrun --nnodes 8 --nproc-per-node gpu train.py"
    assert gpus(command, devices=str(tmp_path)) == 16
    assert gpus(command, devices=str(tmp_path), CUDA_VISIBLE_DEVICES="0") == 8


def test_a_number_in_a_script_settings_or_host_file_counts(tmp_path: Path) -> None:
    launch = "torchrun --nnodes 64 --nproc-per-node 8 train.py\n"
    (tmp_path / "run.sh").write_text(f"#!/bin/bash\nset -e\n{launch}")
    (tmp_path / "run").write_text(launch)
    (tmp_path / "outer.sh").write_text("exec bash run.sh\n")
    (tmp_path / "job.sh").write_text("#!/bin/bash\n#SBATCH --nodes=64\n#SBATCH --gres=gpu:8\npython train.py\n")
    (tmp_path / "many.yaml").write_text("trainer:\n  devices: 8\n  num_nodes: 64\n")
    (tmp_path / "many.json").write_text('{"num_processes": 512}')
    (tmp_path / "hosts").write_text("# workers\na slots=256\nb:256\n")
    commands = [
        "bash run.sh",
        "bash run",
        "bash outer.sh",
        "sbatch job.sh",
        "python train.py --config many.yaml",
        "python train.py config=many.yaml",
        "accelerate launch --config_file many.json train.py",
        "deepspeed --hostfile hosts train.py",
        "mpirun --hostfile hosts python train.py",
    ]
    for command in commands:
        assert gpus(command, folder=tmp_path) == 512, command
    (tmp_path / "small.sh").write_text("torchrun --nproc-per-node 8 train.py\n")
    (tmp_path / "few.yaml").write_text("trainer: {devices: 8, num_nodes: 1}\n")
    assert gpus("bash small.sh", folder=tmp_path) == 8
    assert gpus("python train.py --config few.yaml", folder=tmp_path) == 8


def test_the_settings_that_hydra_chooses_count(tmp_path: Path) -> None:
    """The file that a group names is the file that the command would name by its path."""
    for name in ("conf/trainer", "conf/exp", "src"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "conf" / "trainer" / "big.yaml").write_text("devices: 8\nnum_nodes: 64\n")
    (tmp_path / "conf" / "trainer" / "small.yaml").write_text("devices: 8\nnum_nodes: 1\n")
    (tmp_path / "conf" / "exp" / "all.yaml").write_text("defaults: [/trainer: big]\n")
    (tmp_path / "conf" / "few.yaml").write_text("defaults:\n  - trainer: small\n")
    (tmp_path / "conf" / "many.yaml").write_text("defaults:\n  - trainer: big\n")
    (tmp_path / "run.sh").write_text("python train.py trainer=big\n")
    (tmp_path / "args").write_text("--nodes\n64\n--devices\n8\n")
    for command in (
        "python train.py trainer=big",
        "python train.py +trainer@main=big",
        "python train.py --config-name many",
        "python src/train.py --config-path ../conf --config-name many",
        "python train.py --config conf/trainer/big.yaml",
        "python train.py --config conf/many.yaml",
        "python train.py trainer=small,big",
        "bash run.sh",
        "python train.py @args",
    ):
        assert gpus(command, folder=tmp_path) == 512, command
    assert gpus(["bash", "-c", "python train.py trainer=big"], folder=tmp_path) == 512
    assert gpus("python train.py", folder=tmp_path, TRAINER_CONFIG="conf/trainer/big.yaml") == 512
    for command in ("python train.py trainer=small", "python train.py --config-name few", "python train.py --x big"):
        assert gpus(command, folder=tmp_path) == 8, command


def test_numbers_that_settings_refer_to_count(tmp_path: Path) -> None:
    settings = tmp_path / "run.yaml"
    for text in (
        "trainer: {devices: '${gpus_of_a_host}', num_nodes: 64}\ngpus_of_a_host: 8\n",
        "devices: ${cluster.width}\nnum_nodes: ${cluster.height}\ncluster:\n  width: 8\n  height: 64\n",
        '{"num_node\\u0073": 64, "devices": 8}',
    ):
        settings.write_text(text)
        assert gpus("python train.py --config run.yaml", folder=tmp_path) == 512, text
    settings.write_text("devices: ${unknown}\n")
    assert "expected a whole number" in str(gpus("python train.py --config run.yaml", folder=tmp_path))


def test_a_vocabulary_that_settings_name_holds_no_number_of_gpus(tmp_path: Path) -> None:
    words = ", ".join(f'"w{number}": {number}' for number in range(6_000))
    (tmp_path / "vocab.json").write_text("{" + words + ', "devices": 5733}')
    (tmp_path / "run.yaml").write_text("tokenizer: vocab.json\ndevices: 8\n")
    assert gpus("python train.py --config run.yaml", folder=tmp_path) == 8
    (tmp_path / "vocab.json").write_text('{"devices": 5733}')
    assert gpus("python train.py --config run.yaml", folder=tmp_path) == 5733


def test_the_default_settings_of_accelerate_count(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "huggingface" / "accelerate"
    folder.mkdir(parents=True)
    (folder / "default_config.yaml").write_text("num_machines: 64\nnum_processes: 512\n")
    assert gpus("accelerate launch train.py", HOME=str(tmp_path)) == 512
    assert gpus("accelerate launch train.py", HOME="/nonexistent") == 8


@pytest.mark.parametrize(
    "argv",
    [
        "python train.py --lr 0.1 -n 1000",
        "torchrun --standalone --nproc-per-node 8 train.py -N 1000 --epochs 90",
        "srun -N 1 --gres=gpu:8 --cpus-per-task=64 --mem=1000 python train.py -n 1000",
        "python train.py --device cuda:0 --gpu_memory 80 --devices_file x",
        "python -c print(1)",
        "python train.py --num_workers 64 --batch-size 1024",
        "python train.py --num_proc 64 --node_rank 63 --nodes_file x",
        "python train.py graph.nodes=[a,b,c] nodes=small",
        "python train.py --tensor-parallel-size auto --data-parallel-size 8",
        "bash -c nodes=$(scontrol)",
    ],
)
def test_other_numbers_do_not_count(argv: str) -> None:
    assert gpus(argv) == 8


def test_a_job_is_decided_on_the_measured_number(tmp_path: Path) -> None:
    """The policy allows 8 GPUs, the job claims 8 and would start 512; the explanation says why it is denied."""
    lab = make_lab(tmp_path)
    guard = Guard.open(
        lab.folder / "policies",
        key=lab.folder / "guard.key",
        log=lab.folder / "audit.db",
        audience="node-1",
        collectors=(IdentityCollector(), JobCollector(), RepositoryCollector(), ScaleCollector()),
    )
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "8")
    denied = guard.decide(request(gpus=8), lab.inputs((*torchrun, "--nnodes", "64", "train.py"))).decision
    assert not denied.allowed
    assert "resource.gpus = 512 (measured, scale: torch.distributed.run --nnodes 64 x" in denied.explain()
    assert guard.decide(request(gpus=8), lab.inputs((*torchrun, "train.py"))).decision.allowed


NODE = tuple(f"/dev/nvidia{number}" for number in range(8))
CUDA = ("/dev/nvidiactl", "/dev/nvidia-uvm")
FIRST = 10**8
"""A pid above all that a kernel gives."""

RUNNING: dict[str, tuple[list[tuple[int, tuple[str, ...]]], int]] = {
    "eight ranks": ([(1, (*CUDA, device)) for device in NODE], 8),
    "eight ranks, each with the whole node open": ([(1, (*CUDA, *NODE))] * 8, 8),
    "eight ranks of ROCm": ([(1, ("/dev/kfd", f"/dev/dri/renderD{128 + number}")) for number in range(8)], 8),
    "a rank and a monitor": ([(1, (*CUDA, NODE[0])), (1, ("/dev/nvidiactl", *NODE))], 1),
    "a rank that monitors": ([(1, (*CUDA, *NODE))], 1),
    "a rank and its data loaders": ([(1, (*CUDA, *NODE))] + [(FIRST, (*CUDA, *NODE))] * 7, 1),
    "two programs on one GPU": ([(1, (*CUDA, NODE[0]))] * 2, 1),
    "a monitor": ([(1, ("/dev/nvidiactl", *NODE))], 0),
}


@pytest.mark.parametrize("name", RUNNING)
def test_more_ranks_on_gpus_are_growth_and_monitoring_is_none(tmp_path: Path, name: str) -> None:
    """NVML opens every GPU of a node, which ended a job on one of them."""
    processes, number = RUNNING[name]
    for pid, (parent, files) in enumerate(processes, FIRST):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1\n")
        for descriptor, file in enumerate(files):
            (tmp_path / str(pid) / "fd" / str(descriptor)).symlink_to(file)
    assert running_scale(range(FIRST, FIRST + len(processes)), str(tmp_path))[0] == number


@pytest.mark.skipif(not is_supported(), reason="this system has no /proc")
@pytest.mark.parametrize(
    ("environment", "number"),
    [({"WORLD_SIZE": "512"}, 512), ({"SLURM_NNODES": "64", "SLURM_GPUS_ON_NODE": "8"}, 512), ({"WORLD_SIZE": "8"}, 0)],
)
def test_a_job_that_grows_after_the_decision_drifts(tmp_path: Path, environment: dict[str, str], number: int) -> None:
    """A worker that joins later says so by its variables; 8 were decided."""
    argv = (sys.executable, "-c", "input()")
    inputs = JobInputs(argv=argv, directory=str(tmp_path), environment={"PATH": os.defpath})
    processes = JobProcesses(inputs)
    growth = JobGrowth(processes, 8)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env={**os.environ, **environment}) as job:
        processes.started(job.pid)
        processes.check()
        drift = growth.check()
        job.communicate(b"\n")
    processes.check()
    # What has grown stays reported after the process has ended.
    assert growth.check() == drift
    assert [(one.reason, one.state) for one in drift] == ([("drift.gpus", str(number))] if number else [])
    assert not JobGrowth(processes, None).check()
