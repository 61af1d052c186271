/**
 * GLM-4-0414 and GLM-Z1: GLM-4 with norms behind attention and FFN as well (transformers:
 * models/glm4/configuration_glm4.py and modeling_glm4.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import { refuse } from "./common.js";
import { glmDefaults, readGlm, writeGlm } from "./glm.js";

/** The config dialect of GLM-4-0414. */
export const glm4: Dialect = {
  family: "glm4",
  architecture: "Glm4ForCausalLM",
  defaults: glmDefaults,
  read: (config) => ({ ...readGlm(config, "glm4"), block: "sandwich" }),
  write(spec: DecoderSpec): Record<string, unknown> {
    if (spec.block !== "sandwich") throw refuse(spec, `${spec.block} blocks`);
    return writeGlm(spec);
  },
};
