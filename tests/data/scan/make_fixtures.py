"""Writes the committed files under `benign/` with torch, numpy, joblib and safetensors; run by hand where torch is.

    python tests/data/scan/make_fixtures.py

The files are what the libraries write and nothing else; `README.md` names the versions they were made with.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "benign"


def main() -> None:
    import joblib
    import numpy
    import safetensors.torch
    import torch
    import torch.distributed.checkpoint as sharded

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "loss": numpy.float64(0.5),
        "settings": argparse.Namespace(rate=0.1),
    }
    torch.save(state, HERE / "torch_zip.pt")
    torch.save(state, HERE / "torch_zip_protocol4.pt", pickle_protocol=4)
    torch.save(state, HERE / "torch_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(
        {
            "q": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
            "s": torch.eye(2).to_sparse(),
            "b": torch.ones(2).bfloat16(),
            "m": torch.empty(2, device="meta"),
        },
        HERE / "torch_kinds.pt",
    )
    sharded.save({"model": model.state_dict(), "step": 3}, checkpoint_id=str(HERE / "torch_sharded"))
    (HERE / "torch_tensor.pkl").write_bytes(pickle.dumps(torch.ones(2)))
    (HERE / "torch_tensor_protocol2.pkl").write_bytes(pickle.dumps(torch.ones(2), protocol=2))
    safetensors.torch.save_file({"w": torch.eye(2), "e": torch.empty(0)}, HERE / "weights.safetensors")
    values = {"a": numpy.arange(4), "o": numpy.array([1, "x", None], dtype=object), "f": numpy.eye(2, order="F")}
    joblib.dump(values, HERE / "plain.joblib")
    for method in ("zlib", "gzip", "bz2", "lzma", "xz"):
        joblib.dump(values, HERE / f"{method}.joblib", compress=(method, 3))
    numpy.savez_compressed(HERE / "packed.npz", a=values["a"], o=values["o"])
    script = HERE.parent / "opaque"
    script.mkdir(exist_ok=True)
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(script / "torchscript.pt"))


if __name__ == "__main__":
    main()
