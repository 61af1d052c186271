// Puts the sources of CUDA kernels, which are read at run time, beside the compiled code.
import { cpSync } from "node:fs";

cpSync("src/engine/cuda/kernels", "dist/engine/cuda/kernels", { recursive: true });
