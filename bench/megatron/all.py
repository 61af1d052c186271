"""All checks on two GPUs in one command, several at a time; needs PyTorch and what pack.sh and make.mjs made, no Node.

    all.py OUT --forms DIR --version 0.20=DIR [--version 0.19=DIR ...] [--seconds N] [--at-once N] [--gloo] [--only PATTERN]

Each check is a run of run.sh. OUT gets the log and the first batch of each, summary.json, and what Megatron-LM saved. --gloo is for
processors (see cpu/). The sweep of layouts is sweep.mjs.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time

here = os.path.dirname(os.path.abspath(__file__))
began = time.monotonic()

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("--forms", required=True)
parser.add_argument("--version", action="append", required=True, help="NAME=FOLDER; the first is the newest")
parser.add_argument("--seconds", type=float, default=500)
parser.add_argument("--at-once", type=int, default=8)
parser.add_argument("--gloo", action="store_true")
parser.add_argument("--only", default="")
given = parser.parse_args()
versions = dict(one.split("=", 1) for one in given.version)
newest = next(iter(versions))
out = os.path.abspath(given.out)
forms = os.path.abspath(given.forms)
os.makedirs(out, exist_ok=True)


def left():
    return given.seconds - (time.monotonic() - began)


class Check:
    """One run: its name, its number of ranks, its arguments, and the run whose checkpoint it loads."""

    def __init__(self, name, ranks, words, version=newest, after=None, model=None):
        self.name, self.ranks, self.words, self.version, self.after, self.model = name, ranks, words, version, after, model
        self.code = None
        self.seconds = None

    def run(self, gpu=None):
        environment = dict(os.environ)
        if gpu is not None and self.ranks == 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        if self.model:
            environment["MODEL_FILE"] = self.model
        words = [*self.words, *(["--distributed-backend", "gloo"] if given.gloo else [])]
        start = time.monotonic()
        command = ["bash", f"{here}/run.sh", versions[self.version], f"{out}/{self.name}", str(self.ranks), *words]
        limit = max(1, min(left(), 3600 if given.gloo else 120))
        done = subprocess.run(["timeout", f"{limit:.0f}", *command], env=environment, capture_output=True, text=True)
        self.code, self.seconds = done.returncode, time.monotonic() - start
        print(f"{time.monotonic() - began:6.1f} s  {self.name}: code {self.code} after {self.seconds:.1f} s", flush=True)
        print("   ", (done.stdout + done.stderr).strip().replace("\n", "\n    ")[-1500 if self.code else -300 :], flush=True)


def arguments_of(form):
    with open(f"{forms}/{form}.args") as file:
        return file.read().split()


def load(form, *more):
    return ["--train-iters", "20", "--finetune", "--exit-on-missing-checkpoint", "--load", f"{forms}/{form}", *arguments_of(form), *more]


first = ["--skip-train"]
# Without --sequence-parallel, which PyTorch's norms refuse (record.py has others), experts are evaluated, but not trained.
tensor = ["--tensor-model-parallel-size", "2"]
pipeline = ["--pipeline-model-parallel-size", "2"]
experts = ["--expert-model-parallel-size", "2"]
layouts = {"dp2": [], "tp2": tensor, "pp2": pipeline, "ep2": experts}
post = "e8g1t2-post"
checks = [
    *[Check(f"fp32-{name}-{post}", 2, load(post, *first, *words)) for name, words in layouts.items()],
    *[Check(f"bf16-{name}-{post}", 2, load(post, *first, *words, "--bf16")) for name, words in layouts.items()],
    *[Check(f"fp32-ep2-{form}", 2, load(form, *first, *experts)) for form in ("e8g1t2-pre", "e8g8t8-post", "e4g2t4-shared")],
    *[
        Check(f"core{version}-{form}", 1, load(form, *first), version)
        for version in list(versions)[1:]
        for form in (post, "e8g8t8-post", "e4g2t4-shared")
    ],
]
shared = "e4g2t4-shared"
distributed = ["--bf16", "--use-distributed-optimizer", *experts]
# Saved at EP 2, loaded again for the loss of what was saved.
checks += [
    Check("on-ep2", 2, load(shared, *distributed, "--no-save-optim", "--save", f"{out}/saved-ep2")),
    Check(
        "again-ep2",
        2,
        ["--train-iters", "20", "--finetune", "--exit-on-missing-checkpoint", "--load", f"{out}/saved-ep2"]
        + [*arguments_of(shared), *first, *distributed],
        after="on-ep2",
    ),
]
for name, words in {
    "torch-tp2": [*tensor],
    "torch-ep2": [*experts, *arguments_of(shared)],
    "torch-pp2": [*pipeline],
}.items():
    old = ["--ckpt-format", "torch", *words]
    checks += [
        Check(name, 2, [*old, "--train-iters", "4", "--no-save-optim", "--save", f"{out}/saved-{name}"]),
        Check(
            f"again-{name}",
            2,
            [*old, *first, "--train-iters", "4", "--finetune", "--exit-on-missing-checkpoint", "--load", f"{out}/saved-{name}"],
            after=name,
        ),
    ]


# With Transformer Engine: its modules, and all experts of a rank in one product.
engine = ["--transformer-impl", "transformer_engine", "--moe-grouped-gemm"]
if importlib.util.find_spec("transformer_engine") is not None:
    checks += [
        Check(f"te-{precision}-{name}-{form}", ranks, load(form, *first, *engine, *words, *(["--bf16"] if precision == "bf16" else [])))
        for precision in ("bf16", "fp32")
        for form in (post, "e8g8t8-post", shared)
        for name, ranks, words in (("one", 1, []), ("ep2", 2, experts))
    ]


def at_once(waiting, places):
    """Runs checks side by side, each behind the one whose checkpoint it loads."""
    lock = threading.Lock()
    done = {check.name for check in waiting if check.code is not None}
    names = {check.name for check in waiting}
    turn = iter(range(10**6))

    def work():
        while True:
            with lock:
                ready = [c for c in waiting if c.code is None and (c.after is None or c.after in done or c.after not in names)]
                check = next((c for c in ready if not getattr(c, "taken", False)), None)
                if check is None and all(getattr(c, "taken", False) for c in waiting):
                    return
                if check is not None:
                    check.taken = True
                    gpu = next(turn) % 2
            if check is None or left() < 5:
                if left() < 5:
                    return
                time.sleep(0.2)
                continue
            check.run(gpu)
            with lock:
                done.add(check.name)

    threads = [threading.Thread(target=work) for _ in range(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read(check):
    """What the log of a run says."""
    found = {"name": check.name, "version": check.version, "ranks": check.ranks, "code": check.code, "seconds": check.seconds}
    found["arguments"] = " ".join(check.words).replace(out, "OUT").replace(forms, "FORMS")
    try:
        with open(f"{out}/{check.name}.log", errors="replace") as file:
            text = file.read()
    except OSError:
        return found
    validation = re.findall(r"validation loss at iteration (\d+).*?lm loss value: (\S+)", text)
    found["validation"] = [[int(step), float(loss)] for step, loss in validation]
    found["losses"] = [float(loss) for loss in re.findall(r"lm loss: (\S+)", text)]
    found["milliseconds"] = [float(time) for time in re.findall(r"elapsed time per iteration \(ms\): (\S+)", text)]
    memory = re.findall(r"peak memory of rank (\d+): allocated (\d+) reserved (\d+) device (\d+)", text)
    found["memory"] = [dict(zip(("rank", "allocated", "reserved", "device"), map(int, one))) for one in memory]
    found["problems"] = re.findall(r"load_return.*|will start from random.*", text)
    try:
        with open(f"{out}/{check.name}.json") as file:
            found["recorded"] = json.load(file).get("loss")
    except OSError:
        pass
    return found


wanted = [check for check in checks if re.search(given.only, check.name)]
for folder in set(versions.values()):
    helper = "from megatron.core.datasets.utils import compile_helpers; compile_helpers()"
    subprocess.run([sys.executable, "-c", helper], cwd=folder, env={**os.environ, "RANK": "0"}, capture_output=True)
print(f"{time.monotonic() - began:6.1f} s  helpers of the data sets are built", flush=True)

# Checks of one GPU side by side; those of two each for itself where two places are all there is.
at_once([check for check in wanted if check.ranks == 1 or given.at_once > 2], given.at_once)
for check in wanted:
    if check.code is None and check.after is None and left() > 30:
        check.run()

summary = [read(check) for check in wanted]
with open(f"{out}/summary.json", "w") as file:
    json.dump(summary, file, indent=1)
failed = [one["name"] for one in summary if one["code"] != 0]
print(f"{time.monotonic() - began:6.1f} s  {len(summary) - len(failed)} ran; failed or not begun: {failed}", flush=True)
sys.exit(1 if failed else 0)
