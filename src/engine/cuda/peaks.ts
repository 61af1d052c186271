/** What GPUs can do at most, by name: dense bfloat16 with float32 sums, as NVIDIA's data sheets say, in TFLOP/s. */
const peaks: readonly (readonly [name: RegExp, teraflops: number])[] = [
  [/\bB200\b/, 2250],
  // Cards named PCIe and NVL have less than the modules.
  [/\bH[12]00\b(?! (PCIe|NVL))/, 989.4],
  [/\bA100\b/, 312],
  [/\bL40S\b/, 362.05],
  [/\bRTX 4090\b(?! D)/, 165.2],
];

/** FLOP/s of a GPU at most in dense bfloat16; null where its name is not known here. */
export function peakFlops(name: string): number | null {
  const teraflops = peaks.find(([pattern]) => pattern.test(name))?.[1];
  return teraflops === undefined ? null : teraflops * 1e12;
}
