/** `upcycle data prepare` */
import { Command } from "commander";
import { resultOf } from "../base/events.js";
import { compact, duration, grouped, rate } from "../base/format.js";
import { prepareData } from "../text/prepare/prepare.js";
import { openContext, shownPath } from "./context.js";
import { defaultThreads, wholeNumber, withExample, withJson, type CommonFlags } from "./options.js";

interface PrepareFlags extends CommonFlags {
  readonly tokenizer: string;
  readonly out: string;
  readonly field: string;
  readonly appendEod?: boolean;
  readonly eodId?: number;
  /** False after --no-special-tokens. */
  readonly specialTokens: boolean;
  readonly workers?: number;
  readonly overwrite?: boolean;
}

/** The command `data` with its options and its help. */
export function dataCommand(): Command {
  const prepare = new Command("prepare")
    .description("write text as a data set of Megatron-LM (.bin and .idx)")
    .argument("<input...>", "text: .txt, .jsonl, .jsonl.gz, .parquet, or folders of such")
    .requiredOption("--tokenizer <dir>", "folder with a tokenizer.json, or that file")
    .requiredOption("--out <prefix>", "PREFIX of PREFIX_FIELD_document.bin and .idx")
    .option("--field <name>", "where JSONL and Parquet have the text", "text")
    .option("--append-eod", "end every document with the tokenizer's end-of-text token")
    .option("--eod-id <id>", "that token's id (default: as the tokenizer's files say)", wholeNumber("--eod-id", 0))
    .option("--no-special-tokens", "leave out what the tokenizer's template adds to a text")
    .option("--workers <n>", "tokenizers side by side (default: all cores)", wholeNumber("--workers", 1, 256))
    .option("--overwrite", "replace the data set if it is there")
    .action(execute);
  const remark =
    "The files are, byte for byte, those of Megatron-LM's tools/preprocess_data.py with the same tokenizer " +
    "(--no-special-tokens there: --tokenizer-hf-no-include-special-tokens). Interrupted work goes on when the same " +
    "command is given again.";
  withExample(
    withJson(prepare),
    "upcycle data prepare data/*.jsonl --tokenizer models/dense --append-eod --out data/mix",
    remark,
  );
  return new Command("data").description("prepare text for training on a cluster").addCommand(prepare);
}

async function execute(inputs: string[], flags: PrepareFlags): Promise<void> {
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "keeping what is done" });
  const started = performance.now();
  const { appendEod = false, eodId, specialTokens, overwrite, field, tokenizer, out } = flags;
  const workers = flags.workers ?? defaultThreads();
  let before = 0;
  const made = await resultOf(
    prepareData({
      inputs,
      field,
      tokenizer,
      out,
      appendEod: appendEod || eodId !== undefined,
      eodId,
      specialTokens,
      workers,
      overwrite,
      signal,
    }),
    ({ type, documents, tokens }) => {
      if (type === "resumed") {
        before = tokens;
        return terminal.note(`going on behind ${grouped(documents)} documents`);
      }
      const speed = ((tokens - before) / (performance.now() - started)) * 1000;
      terminal.progress(`${grouped(documents)} documents  ${compact(tokens)} tokens  ${rate(speed)}`);
    },
  );
  if (json) return terminal.json({ ...made });
  terminal.settle();
  terminal.out([
    `${grouped(made.documents)} documents, ${grouped(made.tokens)} tokens as ${made.width}, in ` +
      duration(made.seconds),
    `train with: --data-path ${shownPath(made.prefix)}`,
  ]);
}
