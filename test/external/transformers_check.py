"""Opens what this toolkit wrote with Hugging Face transformers and compares: python transformers_check.py manifest.json

Prints Markdown tables to stdout; exits with 1 if a case that must agree does not.
"""
import collections
import json
import sys
import warnings

import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

SAME_LOGITS = 1e-4
KEPT_FUNCTION = 1e-5
# Opened in float32, transformers multiplies by Gemma's embedding factor in float32; we take the one of the folder's precision.
OTHER_FACTOR = 1e-3
problems = []


def fail(case, what):
    problems.append(f"{case['name']}: {what}")


def load(case, folder, dtype=torch.float32):
    """The model, and nothing left random: transformers fills what a folder lacks without an error."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info[kind]:
            fail(case, f"{kind} {list(info[kind])[:3]}")
    return model.eval()


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids.long(), use_cache=False).logits.float()


def largest(x):
    return x.abs().max().item()


def check_logits(case):
    ours = safetensors.torch.load_file(case["ours"])
    model = load(case, case["dir"])
    theirs = logits(model, ours["input_ids"])
    case["class"] = type(model).__name__
    case["difference"] = largest(theirs - ours["logits"])
    case["largest"] = largest(theirs)
    if "save" in case:
        model.save_pretrained(case["save"])
    if "parent" in case:
        parent = logits(load(case, case["parent"]), ours["input_ids"])
        case["kept"] = largest(theirs - parent) / largest(parent)
        case["kept_ours"] = largest(ours["logits"] - parent) / largest(parent)


def check_variant(case):
    check_logits(case)
    if not case["difference"] <= SAME_LOGITS:
        fail(case, f"logits differ by {case['difference']:.1e}")


def ties(case):
    """Equal router logits of different copies: which of them top-k takes is not specified in PyTorch."""
    return case["kind"] == "convert" and case["routerStd"] == 0 and "G1" not in case["recipe"]


def keeps_function(case):
    # SparseMixer shares a weight among equal logits.
    if case["target"] == "phimoe" and case["routerStd"] == 0:
        return False
    return case["order"] == "topk-softmax" or case["routerStd"] == 0


def check_convert(case):
    check_logits(case)
    if ties(case):
        if case["kept_ours"] > KEPT_FUNCTION:
            fail(case, f"our engine is {case['kept_ours']:.1e} away from the parent")
        return
    if not case["difference"] <= SAME_LOGITS:
        fail(case, f"logits differ by {case['difference']:.1e}")
    if keeps_function(case) and not case["kept"] <= KEPT_FUNCTION:
        fail(case, f"{case['kept']:.1e} away from the parent")


def check_rewrite(case):
    check_logits(case)
    if not case["difference"] <= (OTHER_FACTOR if case["refactored"] else SAME_LOGITS):
        fail(case, f"logits differ by {case['difference']:.1e}")
    if case.get("kept", 0) != 0:
        fail(case, f"rewriting changed the logits by {case['kept']:.1e}")
    # "auto" takes the precision that config.json names.
    model = load(case, case["dir"], "auto")
    if str(model.dtype) != f"torch.{case['dtype']}":
        fail(case, f"loads as {model.dtype}, expected {case['dtype']}")
    again = logits(model, safetensors.torch.load_file(case["ours"])["input_ids"])
    if not torch.isfinite(again).all():
        fail(case, "logits are not finite in its own precision")
    case["own_precision"] = largest(again - safetensors.torch.load_file(case["ours"])["logits"])


def check_train(case):
    check_logits(case)
    if not case["difference"] <= SAME_LOGITS:
        fail(case, f"logits differ by {case['difference']:.1e}")
    tokenizer = AutoTokenizer.from_pretrained(case["dir"])
    case["other_ids"] = []
    for entry in case["tokenizer"]:
        text = entry["text"]
        theirs = {
            "plain": tokenizer(text, add_special_tokens=False)["input_ids"],
            "special": tokenizer(text)["input_ids"],
            "decoded": tokenizer.decode(entry["plain"]),
        }
        for kind, value in theirs.items():
            if value != entry[kind]:
                case["other_ids"].append(repr(text))
                fail(case, f"{kind} of {text!r} is {value!r}, ours {entry[kind]!r}")
    case["same_ids"] = case["other_ids"] == []
    if tokenizer.eos_token_id != case["eos"]:
        fail(case, f"eos {tokenizer.eos_token_id}, ours {case['eos']}")
    model = load(case, case["dir"])
    prompt = tokenizer("Call me", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    if out.shape[1] > prompt["input_ids"].shape[1] + 4 or out.shape[1] <= prompt["input_ids"].shape[1]:
        fail(case, f"generate gave {out.shape[1]} tokens")


def table(headers, rows):
    print("| " + " | ".join(headers) + " |")
    print("|" + "---|" * len(headers))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def worst(cases, key):
    return f"{max(case[key] for case in cases):.1e}"


def grouped(cases, key):
    groups = collections.defaultdict(list)
    for case in cases:
        groups[key(case)].append(case)
    return groups.items()


def report(cases):
    of = lambda kind: [case for case in cases if case["kind"] == kind]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, safetensors {safetensors.__version__}, float32, eager attention\n")
    print("Converted models. Differences are the largest over all logits; from the parent: as a fraction of its largest |logit|.\n")
    rows = []
    for (recipe, target, order, std), group in grouped(of("convert"), lambda c: (c["recipe"], c["target"], c["order"], c["routerStd"])):
        sources = ", ".join(case["source"] for case in group)
        note = "ties" if ties(group[0]) else "" if keeps_function(group[0]) else "approximate by design"
        rows.append((recipe, target, order, std, sources, worst(group, "difference"), worst(group, "kept"), worst(group, "kept_ours"), note))
    rows.sort(key=lambda row: row[:3])
    table(("recipe", "target", "router order", "router std", "parents", "transformers - ours", "from parent", "from parent, our engine", ""), rows)
    print("Features that the golden models lack, random weights.\n")
    rows = [(case["name"], case["class"], f"{case['difference']:.1e}", f"{case['largest']:.0f}") for case in of("variant")]
    table(("model", "class", "transformers - ours", "largest logit"), rows)
    print("Golden models written again. Own precision: loaded in the precision of the file, against our float32 logits of that file.\n")
    rows = []
    for (source, name), group in grouped(of("rewrite"), lambda c: (c["source"], c["class"])):
        by = {case["as"]: case for case in group}
        cell = lambda key, of: f"{by[key][of]:.1e}" if key in by else ""
        rows.append((source, name, *(cell(key, "difference") for key in by), *[""] * (4 - len(by)),
                     f"{max(case.get('kept', 0) for case in group):.1g}", cell("bfloat16", "own_precision")))
    table(("model", "class", "float32", "bfloat16", "float16", "float32, many files", "changed by rewriting", "bfloat16, own precision"), rows)
    print("Models trained here, with their tokenizer.\n")
    rows = []
    for name, group in grouped(of("train"), lambda c: c["class"]):
        texts = len(group[0]["tokenizer"])
        agree = "all" if all(case["same_ids"] for case in group) else ", ".join(sorted({kind for case in group for kind in case["other_ids"]}))
        rows.append((name, len(group), worst(group, "difference"), texts, "all" if agree == "all" else f"not {agree}"))
    table(("class", "checkpoints", "transformers - ours", "texts", "same token ids"), rows)


def main():
    with open(sys.argv[1], encoding="utf8") as file:
        cases = json.load(file)
    done = []
    for case in cases:
        try:
            {"convert": check_convert, "variant": check_variant, "rewrite": check_rewrite, "train": check_train}[case["kind"]](case)
            done.append(case)
        except Exception as error:  # A case that cannot even be opened must not hide the others.
            fail(case, f"{type(error).__name__}: {str(error).splitlines()[0]}")
    report(done)
    print(f"{len(cases)} cases, {len(problems)} problems")
    for problem in problems:
        print(f"- {problem}")
    return 1 if problems else 0


sys.exit(main())
