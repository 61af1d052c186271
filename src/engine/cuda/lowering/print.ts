/** A launch list as text: what runs, over which memory, and what it costs. */
import { at } from "../../../base/at.js";
import type {
  Argument,
  Buffer,
  BufferId,
  KernelLaunch,
  Launch,
  LaunchList,
  Operand,
  ProductLaunch,
} from "./launches.js";

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(3)} MB`;
const megaflops = (flops: number): string => `${(flops / 1e6).toFixed(3)} MFLOP`;

/** `i3` input, `h3` the same in bfloat16, `k4` part of the cache, `o2` output, `a@1024` in the arena, `c7` constant. */
function placeOf({ buffers, places }: LaunchList, id: BufferId, offset = 0): string {
  const { home }: Buffer = at(buffers, id);
  const more = offset === 0 ? "" : `+${offset}`;
  switch (home.kind) {
    case "arena":
      return `a@${(places.get(id) ?? 0) + offset}`;
    case "input":
      return `i${home.index}${more}`;
    case "output":
      return `o${home.index}${more}`;
    case "half":
      return `h${home.index}${more}`;
    case "cache":
      return `k${home.index}${more}`;
    case "constant":
      return `c${id}${more}`;
  }
}

const marks = { read: "", write: "=", update: "+=" } as const;

function printArgument(list: LaunchList, argument: Argument): string {
  switch (argument.kind) {
    case "pointer":
      return marks[argument.access] + placeOf(list, argument.buffer, argument.offset);
    case "table":
      return `${marks[argument.access]}[${argument.buffers.map((id) => placeOf(list, id)).join(" ")}]`;
    case "maps": {
      const { buffers, rows, columns, boxRows, apart } = argument;
      const places = buffers.map((id) => placeOf(list, id, 2 * (apart?.first ?? 0)));
      const size = `${rows}x${columns}${apart === undefined ? "" : ` of ${apart.stride}`}`;
      return `{${places.join(" ")} ${size}/${boxRows}}`;
    }
    case "null":
      return "-";
    case "int":
    case "long":
    case "float":
      return String(argument.value);
  }
}

function printKernel(list: LaunchList, launch: KernelLaunch): string {
  const { module, kernel, real, grid, block, shared } = launch;
  const size = `<${grid.join(",")} x ${block}${shared === 0 ? "" : `, ${shared} B`}>`;
  const args = launch.arguments.map((each) => printArgument(list, each)).join(", ");
  return `${module}.${kernel}${real === "bf16" ? ":bf16" : ""}${size}(${args})`;
}

function printProduct(list: LaunchList, launch: ProductLaunch): string {
  const { m, n, k, transA, transB, addend, compute, stored, a, b, out } = launch;
  const types = compute === "f32" && stored === "f32" ? "" : ` ${compute}->${stored}`;
  const flags = `${transA ? "T" : "N"}${transB ? "T" : "N"}`;
  const place = ({ buffer, offset }: Operand): string => placeOf(list, buffer, offset);
  const inPlace = addend?.buffer === out.buffer && addend.offset === out.offset;
  const added = addend === null || inPlace ? "" : `, ${place(addend)}`;
  const target = `${inPlace ? "+=" : "="}${place(out)}`;
  return `product ${flags}${types} ${m}x${n}x${k}(${place(a)}, ${place(b)}${added}, ${target})`;
}

const printLaunch = (list: LaunchList, launch: Launch): string =>
  launch.kind === "kernel" ? printKernel(list, launch) : printProduct(list, launch);

/** The sizes of the whole, then a line for each launch with its bytes and FLOPs. */
export function printLaunches(list: LaunchList): string {
  const { launches, arena, buffers } = list;
  const sum = (of: (launch: Launch) => number): number => launches.reduce((total, launch) => total + of(launch), 0);
  const constants = buffers.reduce((total, { bytes, home }) => total + (home.kind === "constant" ? bytes : 0), 0);
  return [
    `${launches.length} launches, ${megabytes(sum(({ bytes }) => bytes))}, ${megaflops(sum(({ flops }) => flops))}`,
    `arena ${megabytes(arena)}, constants ${megabytes(constants)}`,
    ...launches.map(
      (launch, index) =>
        `${index}: ${printLaunch(list, launch)} ${megabytes(launch.bytes)}, ${megaflops(launch.flops)}`,
    ),
  ].join("\n");
}
