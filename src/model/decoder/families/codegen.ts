/**
 * CodeGen: GPT-J with queries, values and keys in one matrix, in four blocks (transformers:
 * models/codegen/configuration_codegen.py and modeling_codegen.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import { refuse } from "./common.js";
import { gptjDefaults, readGptj, writeGptj } from "./gptj.js";
import type { ConfigReader } from "./reader.js";

/** Blocks of the fused matrix; each has whole heads. */
const BLOCKS = 4;

/** The config dialect of CodeGen. */
export const codegen: Dialect = {
  family: "codegen",
  architecture: "CodeGenForCausalLM",
  defaults: gptjDefaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(gptjDefaults.names ?? {});
    const spec = readGptj(config, "codegen");
    if (spec.attn.heads % BLOCKS !== 0) throw config.fail("num_attention_heads", `a multiple of ${BLOCKS}`);
    return spec;
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    if (spec.attn.heads % BLOCKS !== 0) throw refuse(spec, `${spec.attn.heads} heads (a multiple of ${BLOCKS})`);
    return writeGptj(spec);
  },
};
