/** Words on the command line that are wrong, absurd, or in the wrong place. */

const convert = (b, ...more) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report", ...more]);
const recipes = ["", "E", "E0G0T0", "E1G1T1", "E2G3T3", "E2G1T3", "E2G2T3", "E-1G1T1", "E1.5G1T1", "e2g1t1", "E2G1", "E2T1G1", "E2G1T1 ", "E02G1T1", "E1e3G1T1", "E2G1T0", "../x.yaml", "recipe.yaml", "__proto__", "E2G1T1.yaml"];
const optioned = {
  convert: [["--seed", "-1"], ["--seed", "1e999"], ["--seed", "9007199254740993"], ["--router-std", "-1"], ["--router-std", "1e999"], ["--router-std", "1e308"], ["--noise", "-1%"], ["--noise", "1e999%"], ["--noise", "x"], ["--noise-fraction", "2"], ["--drop", "1.5"], ["--drop", "-0"], ["--shared", "1e9"], ["--shared", "0"], ["--layers", "99"], ["--layers", "5-2"], ["--layers", ","], ["--layers", "0-99999999999"], ["--layers", ""], ["--dtype", "float8"], ["--shard-size", "0"],
    ["--shard-size", "1B"], ["--shard-size", "1e999GB"], ["--shard-size", "-5GB"], ["--threads", "0"], ["--threads", "-1"], ["--threads", "1e9"], ["--aux-loss", "-1"], ["--aux-loss", "1e999"], ["--target", "__proto__"], ["--target", "constructor"], ["--router", "toString"], ["--scaling", "__proto__"], ["--text", "nowhere.txt"], ["--text", ""], ["--text", "m"], ["--mergekit", "x"], ["--expert-multiply", "2"], ["--topk", "2"], ["--out", "x", "--out", "y"], ["--recipe"], ["--experts", "magic"]],
  generate: [["--max-new-tokens", "0"], ["--max-new-tokens", "-1"], ["--temperature", "-1"], ["--temperature", "1e999"], ["--temperature", "1e-320"], ["--temperature", "1e308"], ["--top-k", "0"], ["--top-k", "1e9"], ["--top-p", "0"], ["--top-p", "2"], ["--seed", "x"], ["--prompt", ""], ["--prompt", "\u0000".replace("\u0000", "\ufffd")], ["--prompt", "\u001b[2J"], ["--prompt", "a".repeat(100_000)], ["--prompts", "x"]],
  plan: [["--tokens", "0"], ["--tokens", "1e999"], ["--tokens", "-1B"], ["--gpu-hours", "0"], ["--money", "1e308"], ["--days", "0"], ["--gpus", "0"], ["--gpus", "1000000000"], ["--price", "-1"], ["--price", "1e999"], ["--sequence", "0"], ["--sequence", "1e18"], ["--batch", "0"], ["--batch", "1e18"], ["--mfu", "0"], ["--mfu", "2"], ["--mfu", "0.4,0.4,0.4"], ["--recipe", ""], ["--recipe", "E8G1T2,E8G1T2"], ["--recipe", Array.from({ length: 3000 }, (_, i) => `E${i + 2}G1T1`).join(",")], ["--d1", "0"], ["--n", "0"],
    ["--n", "1e300"], ["--parent-lr", "0"], ["--level", "1"], ["--draws", "0"], ["--draws", "1e9"], ["--gpu", "__proto__"], ["--gpu", "constructor"], ["--shape", "hidden=1"], ["--shape", "hidden=1e9,layers=1e9,heads=1,inner=1,vocab=1"], ["--size", "7Q"], ["--size", "1e30"], ["--coefficients", "__proto__=x"]],
  verify: [["--tokens", "0"], ["--tokens", "1e18"], ["--sequence", "0"], ["--sequence", "1"], ["--sequence", "1000000"], ["--memory", "0"], ["--memory", "1B"], ["--memory", "1e999GB"], ["--tolerance", "-1"], ["--tolerance", "1e999"], ["--threads", "0"]],
};
const first = {
  convert: (b) => convert(b), generate: (b) => (b.copy("dense", "m"), ["generate", "m", "--max-new-tokens", "2"]), plan: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5"],
  verify: (b) => (b.copy("dense"), b.copy("moe"), ["verify", "dense", "moe", "--tokens", "64", "--sequence", "32"]),
};
const options = Object.entries(optioned).flatMap(([command, list]) => list.map((words, i) => ({
  more: i % 3 !== 0, name: `arguments: ${command} ${words.join(" ").slice(0, 60)}`, expect: [0, 1, 2], data: command === "generate", may: /^(out|y)/, memory: 1500, make: (b) => [...first[command](b), ...words],
})));
/** Models that each command cannot take. */
const wrongModels = { "a mixture for convert": ["convert", "moe", "--recipe", "E2G1T1", "--out", "out"], "a dense model for merge": ["merge", "dense", "--out", "out"], "the two swapped for verify": ["verify", "moe", "dense"], "two dense models for verify": ["verify", "dense", "dense"], "a run folder": ["inspect", "run"], "a folder of nothing": ["inspect", "nothing"], "a file": ["inspect", "text.txt"], "a file of the folder": ["inspect", "dense/config.json"], "a folder that is not there": ["inspect", "nowhere"], "two families for diff": ["diff", "dense", "moe"], "an expert that is not there": ["merge", "moe", "--expert", "99", "--out", "out"], "a mixture for targets": ["targets", "moe"], "a mixture for plan": ["plan", "moe", "--tokens", "1B"], "no tokenizer to generate": ["generate", "bare", "--prompt", "x"], "no tokenizer for perplexity": ["perplexity", "bare", "text.txt"] };
const models = Object.entries(wrongModels).map(([what, args]) => ({
  name: `arguments: ${what}`, expect: /diff|targets|run folder/.test(what) ? [0, 2] : /two dense/.test(what) ? [0, 1, 2] : [2],
  make: (b) => {
    for (const name of ["dense", "moe", "run", "text.txt"]) b.copy(name);
    b.copy("golden/dense/llama", "bare");
    b.file("nothing/.keep", "");
    return { args, ...(what.includes("swapped") && { says: /swap|order|first|mixture/i }) };
  },
}));
const shapes = [
  [["convert"], [2]], [["frobnicate"], [2]], [["convert", "--frobnicate"], [2]], [["inspect"], [2]], [["inspect", "a", "b", "c"], [2]], [["--"], [0, 2]], [["--", "inspect"], [2]], [["-"], [2]], [["--json"], [2]], [["--debug"], [0]], [["--version", "--json"], [0, 2]], [["help", "nothing"], [0, 2]], [["help", "help"], [0, 2]], [[""], [2]], [["inspect", ""], [2]], [["inspect", "--json", "--json", "nowhere"], [2]], [["__proto__"], [2]], [["constructor"], [2]], [["toString", "x"], [2]], [["Inspect", "x"], [2]], [["inspct", "x"], [2]],
  [["convert", "m", "--recipe", "--out"], [2]], [["fit"], [2]], [["plan"], [2]], [["plan", "--preset", "__proto__"], [2]], [["plan", "--preset", "llama-2-7b", "--size", "7B"], [0, 2]], [["verify", "a"], [2]], [["train"], [2]], [["train", "nowhere.yaml"], [2]], [["study", "nowhere.yaml"], [2]], [["quickstart", "--threads", "0"], [2]], [["quickstart", "--out", "/proc/x"], [1, 2]], [["quickstart", "extra"], [2]], [Array.from({ length: 5000 }, () => "x"), [2]], [["inspect", "x".repeat(100_000)], [2]],
].map(([args, expect]) => ({ json: args[0] !== "--version" && args.includes("--json"), name: `arguments: upcycle ${args.join(" ").slice(0, 60)}`, expect, make: () => args }));
const ofRecipes = recipes.map((recipe) => ({ name: `arguments: --recipe ${JSON.stringify(recipe)}`, expect: ["E1G1T1", "E02G1T1", "E2G1T1 ", "e2g1t1"].includes(recipe) ? [0, 2] : [2], may: /^out/, make: (b) => (b.copy("golden/dense/llama", "m"), ["convert", "m", "--recipe", recipe, "--out", "out", "--no-report"]) }));

export const cases = [...options, ...models, ...shapes, ...ofRecipes];
