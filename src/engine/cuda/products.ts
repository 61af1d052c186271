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

/** What decides how a product is best made. */
type ProductSizes = Pick<ProductLaunch, "m" | "n" | "k" | "transA" | "transB" | "compute" | "stored">;

/** Ways to make a product that are asked for. */
const MOST_CANDIDATES = 8;

/** A product whose algorithm is chosen: out = a b + addend, if there is one; it may be `out`. */
export type Product = (
  operands: { readonly a: Address; readonly b: Address; readonly addend: Address | null; readonly out: Address },
  stream: Address,
  workspace: Address,
) => void;

/** A product of certain sizes, and the ways in which it can be made. */
export interface ProductPlan {
  /** As cuBLASLt describes them, the one that it thinks best first. */
  readonly candidates: readonly Uint8Array[];
  /** The way in which `run` makes it: the first candidate, until another is set. */
  algorithm: Uint8Array;
  readonly run: Product;
}

/** Matrix products by cuBLASLt. */
export interface Products {
  /** "13.1.0" */
  readonly version: string;
  /** The product of these sizes, the same for the same `sizes` and `use`. */
  plan(sizes: ProductSizes, use?: string): ProductPlan;
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

/** A name that products of equal sizes share. */
export const sizesKey = ({ m, n, k, transA, transB, compute, stored }: ProductSizes): string =>
  [m, n, k, transA, transB, compute, stored].join();

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
  const plans = new Map<string, ProductPlan>();

  function open({ m, n, k, transA, transB, compute, stored }: ProductSizes): ProductPlan {
    const operation = handleFrom((into) => call("cublasLtMatmulDescCreate", into, computes[compute], types.f32));
    const transposed = (flag: boolean): Int32Array => Int32Array.of(Number(flag));
    call("cublasLtMatmulDescSetAttribute", operation, TRANSPOSE_A, transposed(transB), 4);
    call("cublasLtMatmulDescSetAttribute", operation, TRANSPOSE_B, transposed(transA), 4);
    const type = types[compute === "bf16" ? "bf16" : "f32"];
    const left = transB ? layout(type, k, n) : layout(type, n, k);
    const right = transA ? layout(type, m, k) : layout(type, k, m);
    const result = layout(types[stored], n, m);
    const [found, count] = [new Uint8Array(MOST_CANDIDATES * RESULT_BYTES), new Int32Array(1)];
    const shapes = [left, right, result, result] as const;
    call("cublasLtMatmulAlgoGetHeuristic", handle, operation, ...shapes, preference, MOST_CANDIDATES, found, count);
    const { 0: candidateCount = 0 } = count;
    if (candidateCount === 0) throw stopError(`cuBLASLt knows no way to multiply ${m}x${k} by ${k}x${n}`);
    const candidates = Array.from({ length: candidateCount }, (_, i) =>
      found.slice(i * RESULT_BYTES, i * RESULT_BYTES + ALGORITHM_BYTES),
    );
    const plan: ProductPlan = {
      candidates,
      algorithm: candidates[0] ?? new Uint8Array(),
      run: ({ a, b, addend, out }, stream, workspace) => {
        const factors = [handle, operation, one, b, left, a, right] as const;
        const sum = [addend === null ? zero : one, addend ?? out, result, out, result] as const;
        call("cublasLtMatmul", ...factors, ...sum, plan.algorithm, workspace, WORKSPACE, stream);
      },
    };
    return plan;
  }

  return {
    version: productsVersion(library),
    plan(sizes, use = "") {
      const key = `${sizesKey(sizes)} ${use}`;
      const plan = plans.get(key) ?? open(sizes);
      plans.set(key, plan);
      return plan;
    },
    close: () => call("cublasLtDestroy", handle),
  };
}
