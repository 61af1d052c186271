"""The LM Evaluation Harness on its own task files, with documents of a local folder; see compare-evaluations.mjs.

Usage: lm_eval_oracle.py REQUEST.json OUT.json
REQUEST: {models: [{name, folder}], runs: [{model, data, tasks: [...], num_fewshot}], limit, include: folder|null,
device: "cpu" if left out, dtype: "float32" if left out, batch: size of a batch, a run may have its own}

Usage: lm_eval_oracle.py REQUEST.json -
The models are opened at once; then each line of the standard input is a run, and one line of the standard output is its
answer, {seconds, cpu, environment, results, samples, ...}. The first line that is written is {versions}.

`cpu` are the seconds that all cores together have worked. `seconds` is the time of `simple_evaluate`, without the seconds of `environment`, in which the harness describes the
machine (it asks pip and the driver), which has nothing to do with the number of questions.
"""

import functools
import glob
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets
import torch


def main() -> None:
    request = json.load(open(sys.argv[1]))

    current = {}

    def load_dataset(path, name=None, **_):
        folder = os.path.join(current["data"], path.replace("/", "--"), name or "default")
        splits = {}
        for file in sorted(glob.glob(os.path.join(folder, "*.jsonl"))):
            rows = [json.loads(line) for line in open(file) if line.strip()]
            splits[os.path.splitext(os.path.basename(file))[0]] = datasets.Dataset.from_list(rows)
        if not splits:
            raise FileNotFoundError(folder)
        return datasets.DatasetDict(splits)

    datasets.load_dataset = load_dataset
    import lm_eval
    import lm_eval.evaluator
    import transformers
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    include = request.get("include")
    manager = TaskManager(include_path=include, include_defaults=include is None)
    @functools.cache
    def opened(name):
        return HFLM(
            pretrained=next(model["folder"] for model in request["models"] if model["name"] == name),
            device=request.get("device", "cpu"),
            dtype=request.get("dtype", "float32"),
            batch_size=request.get("batch", 4),
            # Grouped products of experts know no float64.
            **({"experts_implementation": "eager"} if request.get("dtype") == "float64" else {}),
        )

    described = [0.0]
    describe = lm_eval.evaluator.add_env_info

    def describe_timed(results):
        started = time.perf_counter()
        describe(results)
        described[0] = time.perf_counter() - started

    lm_eval.evaluator.add_env_info = describe_timed

    def evaluated(run):
        lm = opened(run["model"])
        if "batch" in run:
            lm.batch_size_per_gpu = run["batch"]
        current["data"] = run["data"]
        started, worked = time.perf_counter(), time.process_time()
        result = simple_evaluate(
            model=lm,
            tasks=run["tasks"],
            num_fewshot=run["num_fewshot"],
            limit=run.get("limit", request.get("limit")),
            apply_chat_template=run.get("chat", False),
            fewshot_as_multiturn=run.get("multiturn", False),
            system_instruction=run.get("system"),
            bootstrap_iters=request.get("bootstrap", 100000),
            log_samples=request.get("samples", True),
            task_manager=manager,
        )
        seconds, cpu = time.perf_counter() - started - described[0], time.process_time() - worked
        samples = {
            task: [
                {
                    "doc_id": sample["doc_id"],
                    "filter": sample["filter"],
                    "contexts": [argument[0] for argument in sample["arguments"]],
                    "continuations": [
                        argument[1] if len(argument) > 1 and isinstance(argument[1], str) else None
                        for argument in sample["arguments"]
                    ],
                    "resps": sample["resps"],
                    "hashes": [sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]],
                }
                for sample in own
            ]
            for task, own in result.get("samples", {}).items()
        }
        measured = {"seconds": seconds, "cpu": cpu, "environment": described[0]}
        return {**run, **measured, "results": result["results"], "samples": samples, "n_shot": result["n-shot"]}

    versions = {
        "lm_eval": lm_eval.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }
    if sys.argv[2] == "-":
        answers = os.fdopen(os.dup(1), "w")
        # What libraries print goes to the standard error.
        os.dup2(2, 1)

        def answer(value):
            print(json.dumps(value, default=float), file=answers, flush=True)

        for model in request["models"]:
            opened(model["name"])
        answer({"versions": versions})
        for line in sys.stdin:
            answer(evaluated(json.loads(line)))
        return
    runs = [evaluated(run) for run in request["runs"]]
    json.dump({"versions": versions, "runs": runs}, open(sys.argv[2], "w"), default=float)


if __name__ == "__main__":
    main()
