/**
 * cuBLASLt: matrix products. Matrices here lie in rows, cuBLASLt's in columns: its product of the exchanged operands,
 * right times left, is the wanted one.
 */
import { stopError } from "../../base/errors.js";
import {
  handleFrom,
  host,
  i32,
  i64,
  size,
  u64,
  type Address,
  type LibraryHandle,
  type NativeValue,
  type StatusFunction,
} from "./native.js";
import type { ProductLaunch } from "./lowering/launches.js";

/** Scratch memory that products may use, in bytes. */
export const WORKSPACE = 32 << 20;

/** cublasComputeType_t and cudaDataType of cublas_api.h and library_types.h. */
const types = { f32: 0, bf16: 14 } as const;
const computes = { f32: 68, tf32: 77, bf16: 68 } as const;
/** Attributes of cublasLt.h. */
const TRANSPOSE_A = 3;
const TRANSPOSE_B = 4;
const MOST_WORKSPACE = 1;
/** Bytes of cublasLtMatmulHeuristicResult_t, and of the algorithm at its beginning. */
const RESULT_BYTES = 96;
const ALGORITHM_BYTES = 64;

type Sizes = Pick<ProductLaunch, "m" | "n" | "k" | "transA" | "transB" | "compute" | "stored">;

/** A product whose algorithm is chosen: out = a b + addend, if there is one; it may be `out`. */
export type Product = (
  operands: { readonly a: Address; readonly b: Address; readonly addend: Address | null; readonly out: Address },
  stream: Address,
  workspace: Address,
) => void;

/** Matrix products by cuBLASLt. */
export interface Products {
  /** The product of these sizes; its algorithm is chosen once. */
  plan(sizes: Sizes): Product;
  close(): void;
}

/** Functions of cuBLASLt that are called, and what they take. */
const signatures = {
  cublasLtCreate: [host],
  cublasLtDestroy: [u64],
  cublasLtMatmulDescCreate: [host, i32, i32],
  cublasLtMatmulDescSetAttribute: [u64, i32, host, size],
  cublasLtMatrixLayoutCreate: [host, i32, u64, u64, i64],
  cublasLtMatmulPreferenceCreate: [host],
  cublasLtMatmulPreferenceSetAttribute: [u64, i32, host, size],
  cublasLtMatmulAlgoGetHeuristic: [u64, u64, u64, u64, u64, u64, u64, i32, host, host],
  cublasLtMatmul: [u64, u64, host, u64, u64, u64, u64, host, u64, u64, u64, u64, host, u64, size, u64],
} as const;

/** Version of a cuBLASLt library, as NVIDIA writes it: "13.1.0". */
export function productsVersion(library: LibraryHandle): string {
  const version = Number((library.func("cublasLtGetVersion", size, []) as unknown as () => number | bigint)());
  return `${Math.floor(version / 10000)}.${Math.floor((version % 10000) / 100)}.${version % 100}`;
}

/** Opens cuBLASLt for the current device. */
export function openProducts(library: LibraryHandle): Products {
  const functions = Object.fromEntries(
    Object.entries(signatures).map(([name, args]) => [name, library.func(name, i32, [...args])]),
  ) as unknown as Record<keyof typeof signatures, StatusFunction>;
  const statusText = library.func("cublasLtGetStatusString", "str", [i32]) as unknown as (status: number) => string;
  const call = (name: keyof typeof signatures, ...args: readonly NativeValue[]): void => {
    const status = functions[name](...args);
    if (status !== 0) throw stopError(`a matrix product failed (${statusText(status)})`, { where: name });
  };
  const handle = handleFrom((into) => call("cublasLtCreate", into));
  const preference = handleFrom((into) => call("cublasLtMatmulPreferenceCreate", into));
  call("cublasLtMatmulPreferenceSetAttribute", preference, MOST_WORKSPACE, BigUint64Array.of(BigInt(WORKSPACE)), 8);
  const layout = (type: number, rows: number, columns: number): Address =>
    handleFrom((into) => call("cublasLtMatrixLayoutCreate", into, type, rows, columns, rows));
  const [one, zero] = [Float32Array.of(1), Float32Array.of(0)];
  const plans = new Map<string, Product>();

  function choose({ m, n, k, transA, transB, compute, stored }: Sizes): Product {
    const operation = handleFrom((into) => call("cublasLtMatmulDescCreate", into, computes[compute], types.f32));
    const transposed = (flag: boolean): Int32Array => Int32Array.of(Number(flag));
    call("cublasLtMatmulDescSetAttribute", operation, TRANSPOSE_A, transposed(transB), 4);
    call("cublasLtMatmulDescSetAttribute", operation, TRANSPOSE_B, transposed(transA), 4);
    const type = types[compute === "bf16" ? "bf16" : "f32"];
    const left = transB ? layout(type, k, n) : layout(type, n, k);
    const right = transA ? layout(type, m, k) : layout(type, k, m);
    const result = layout(types[stored], n, m);
    const [found, count] = [new Uint8Array(RESULT_BYTES), new Int32Array(1)];
    const shapes = [left, right, result, result] as const;
    call("cublasLtMatmulAlgoGetHeuristic", handle, operation, ...shapes, preference, 1, found, count);
    if (count[0] === 0) throw stopError(`cuBLASLt knows no way to multiply ${m}x${k} by ${k}x${n}`);
    const algorithm = found.subarray(0, ALGORITHM_BYTES);
    return ({ a, b, addend, out }, stream, workspace) =>
      call(
        "cublasLtMatmul",
        ...[
          handle,
          operation,
          one,
          b,
          left,
          a,
          right,
          addend === null ? zero : one,
          addend ?? out,
          result,
          out,
          result,
        ],
        ...[algorithm, workspace, WORKSPACE, stream],
      );
  }

  return {
    plan(sizes) {
      const { m, n, k, transA, transB, compute, stored } = sizes;
      const key = [m, n, k, transA, transB, compute, stored].join();
      const plan = plans.get(key) ?? choose(sizes);
      plans.set(key, plan);
      return plan;
    },
    close: () => call("cublasLtDestroy", handle),
  };
}
