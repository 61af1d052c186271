"""Carries out, on the machine with the GPUs, what sweep.mjs packed: as far as a call lasts. The same command again goes on.

    sweep.py DIR OUT [--seconds 560] [--work /tmp/sweep] [--only PATTERN] [--gloo] [--node PROGRAM] [--trainer PROGRAM]

It is run in the folder of the repository, with dist/ built. DIR holds runs.json, megatron.tar.xz and node.xz. Runs start in their order,
several at a time where GPUs are free, each behind those that it needs, and only where the time is likely to last. OUT gets summary.json
and logs.tar.xz (the log of each run, with what this machine is), for analyse.mjs. WORK keeps what was done, and the checkpoints. On a
machine that has nothing of it, DIR/earlier.json (an earlier summary.json) says what need not be measured again.

Only the standard library is used beside what the runs themselves need. --gloo is for processors (see cpu/); --node is the Node.js
that converts, --trainer a program in place of torchrun and Megatron-LM, for tests.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

here = os.path.dirname(os.path.abspath(__file__))
began = time.monotonic()

parser = argparse.ArgumentParser()
parser.add_argument("dir")
parser.add_argument("out")
parser.add_argument("--seconds", type=float, default=560)
parser.add_argument("--work", default="/tmp/sweep")
parser.add_argument("--only", default="")
parser.add_argument("--gloo", action="store_true")
parser.add_argument("--node")
parser.add_argument("--trainer")
given = parser.parse_args()
folder, out, work = (os.path.abspath(path) for path in (given.dir, given.out, given.work))
logs = f"{work}/logs"
for path in (out, logs):
    os.makedirs(path, exist_ok=True)
with open(f"{folder}/runs.json") as file:
    plan = json.load(file)


def left():
    return given.seconds - (time.monotonic() - began)


def say(line):
    print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)


def read_json(path, otherwise):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError:
        return otherwise


def write_json(path, value):
    with open(f"{path}.part", "w") as file:
        json.dump(value, file, indent=1)
    os.replace(f"{path}.part", path)


def node():
    """The Node.js that converts: the one that is given, or the packed one."""
    if given.node:
        return given.node
    program = f"{work}/node"
    if not os.path.exists(program):
        with open(f"{program}.part", "wb") as file:
            subprocess.run(["xz", "-dc", f"{folder}/node.xz"], stdout=file, check=True)
        os.chmod(f"{program}.part", 0o755)
        os.replace(f"{program}.part", program)
    return program


places = {"{WORK}": work, "{DIR}": folder, "{OUT}": out, "{NODE}": node(), "{PYTHON}": sys.executable}


def filled(text):
    for name, value in places.items():
        text = text.replace(name, value)
    return text


done = read_json(f"{work}/done.json", {})
earlier = {run["name"]: run for run in read_json(f"{folder}/earlier.json", {"runs": []})["runs"] if run["code"] == 0}
by_name = {run["name"]: run for run in plan["runs"]}


def is_available(run):
    """Whether what it makes, if anything, is there."""
    made = run.get("makes")
    return done.get(run["name"], {}).get("code") == 0 and (made is None or os.path.exists(filled(made)))


def is_wanted(run):
    """Whether it measures something that is not known yet."""
    measures = run["kind"] != "command" or run["name"].startswith("equal-")
    known = done.get(run["name"], {}).get("code") == 0 or run["name"] in earlier
    return measures and not known and re.search(given.only, run["name"]) is not None


def needed():
    """The names of the wanted runs, and of those that make what they need and that is not there."""
    names = set()

    def need(run):
        if run["name"] in names or is_available(run):
            return
        names.add(run["name"])
        for name in run["after"]:
            need(by_name[name])

    for run in plan["runs"]:
        if is_wanted(run):
            need(run)
    return names


def command_of(run):
    if run["kind"] == "command":
        return ["bash", "-c", filled(run["command"])]
    words = [filled(word) for word in run["words"]]
    if given.gloo:
        words += ["--distributed-backend", "gloo"]
    if given.trainer:
        return [*given.trainer.split(), *words]
    return ["bash", f"{here}/run.sh", f"{work}/megatron", f"{logs}/{run['name']}", str(run["gpus"]), *words]


def execute(run, gpus):
    environment = {**os.environ, **run.get("environment", {}), "MODEL_FILE": f"{here}/bare.sh"}
    if gpus and not given.gloo:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    # A folder of saves that a broken run left would be loaded by nobody, and could be taken for a whole one.
    made = run.get("makes")
    if made is not None:
        shutil.rmtree(filled(made), ignore_errors=True)
    start = time.monotonic()
    log = f"{logs}/{run['name']}.log"
    own = run["kind"] == "command" or given.trainer
    with open(log if own else os.devnull, "w") as file, open(f"{logs}/{run['name']}.out", "w") as printed:
        process = subprocess.Popen(
            command_of(run), env=environment, stdout=file if own else printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=max(1, left()))
        except subprocess.TimeoutExpired:
            # torchrun ends its ranks, which may lie in sessions of their own.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            code = 124
    return {"name": run["name"], "code": code, "seconds": round(time.monotonic() - start, 1), "gpus": gpus}


def machine():
    """What the runs ran on, in words."""

    def first(command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
        except OSError:
            return ""

    named = first(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).splitlines()
    torch = "import torch; print(torch.__version__)"
    return {"gpus": named, "python": sys.version.split()[0], "torch": "" if given.trainer else first([sys.executable, "-c", torch])}


lock = threading.Condition()
free = set(range(plan["gpus"]))
under_way = {}
mine = []
names = needed()
waiting = [run for run in plan["runs"] if run["name"] in names]


def end_of(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()[-1500:].replace("\n", "\n    ")
    except OSError:
        return ""


def work_on(run, gpus):
    found = execute(run, gpus)
    with lock:
        free.update(gpus)
        del under_way[run["name"]]
        if found["code"] != 124:
            done[run["name"]] = found
            write_json(f"{work}/done.json", done)
        mine.append(found)
        say(f"{run['name']}: code {found['code']} after {found['seconds']} s")
        if found["code"] != 0:
            print("   ", end_of(f"{logs}/{run['name']}.log"), flush=True)
        lock.notify_all()


def next_run():
    """The first run that may begin now; None where there is none."""
    converting = sum(1 for run in under_way.values() if run["kind"] == "command")
    for run in waiting:
        ready = all(is_available(by_name[name]) for name in run["after"]) and run["seconds"] <= left()
        if ready and run["gpus"] <= len(free) and (run["kind"] != "command" or converting < 2):
            return run
    return None


threads = []
with lock:
    while True:
        run = next_run()
        if run is not None:
            waiting.remove(run)
            gpus = sorted(free)[: run["gpus"]]
            free.difference_update(gpus)
            under_way[run["name"]] = run
            thread = threading.Thread(target=work_on, args=(run, gpus))
            threads.append(thread)
            thread.start()
            continue
        if not under_way:
            break
        lock.wait(timeout=1)
for thread in threads:
    thread.join()

runs = {**earlier, **done, **{one["name"]: one for one in mine}}
summary = {"machine": machine(), "plan": plan, "runs": list(runs.values())}
for name in os.listdir(out):
    if name.startswith("equal-"):
        shutil.copy(f"{out}/{name}", f"{logs}/{name}")
write_json(f"{out}/summary.json", summary)
with tarfile.open(f"{out}/logs.tar.xz", "w:xz") as archive:
    for name in sorted(os.listdir(logs)):
        if name.endswith((".log", ".json")):
            archive.add(f"{logs}/{name}", arcname=name)
failed = [one["name"] for one in mine if one["code"] != 0]
later = [run["name"] for run in waiting]
say(f"{len(mine) - len(failed)} ran; failed: {failed}; left for another call: {len(later)} {later}")
sys.exit(1 if failed else 0)
