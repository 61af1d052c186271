/** Finds every stored tensor of a model folder from its index and the headers of its files; reads no weights. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import type { Header } from "../formats/safetensors.js";
import {
  headerAlone,
  headerLength,
  isHeaderAlone,
  lengthBytes,
  parseHeader,
  tensorBytes,
} from "../formats/safetensors.js";
import { indexFileName, parseIndex, pickledFileName, pickledIndexFileName, singleFileName } from "../formats/shards.js";
import { exists } from "../io/atomic.js";
import { requireNoDeadLink, withFsErrors } from "../io/fs-errors.js";
import type { RangeFile } from "../io/ranges.js";
import { openPooled } from "../io/range-pool.js";
import { readText } from "../io/ranges.js";
import { pickledTensors } from "./pickled.js";
import { contiguous, type Located } from "./stored.js";

/** One way to store weights: the names of its files, and what a file of it holds. */
interface Container {
  readonly single: string;
  readonly index: string;
  readonly extension: string;
  tensorsOf(source: RangeFile, name: string): Promise<Iterable<readonly [string, Located]>>;
}

const safetensors: Container = {
  single: singleFileName,
  index: indexFileName,
  extension: "safetensors",
  async tensorsOf(source, file) {
    const { tensors, dataStart } = await readHeader(source);
    const weightless = isHeaderAlone(await source.read(dataStart, headerAlone(source.size - dataStart).length));
    return locatedIn(source, file, tensors, weightless);
  },
};

/** One after the other, so that the many of a large header are not listed once more. */
function* locatedIn(
  source: RangeFile,
  file: string,
  tensors: Header["tensors"],
  weightless: boolean,
): Generator<readonly [string, Located]> {
  for (const [name, { dtype, shape, begin }] of tensors) {
    const tensor = contiguous(source, begin, { file, dtype, shape, bytes: tensorBytes(dtype, shape) });
    yield [name, weightless ? { ...tensor, read: () => Promise.reject(noWeightsHere(source.path)) } : tensor];
  }
}

const pickled: Container = {
  single: pickledFileName,
  index: pickledIndexFileName,
  extension: "bin",
  tensorsOf: pickledTensors,
};

/** In order of preference. */
const containers: readonly Container[] = [safetensors, pickled];

/**
 * Opened files are added to `files` at once, for the caller to close. Throws inputError for what is missing, damaged or
 * contradictory.
 */
export async function locateTensors(dir: string, files: RangeFile[]): Promise<Map<string, Located>> {
  for (const container of containers) {
    // A single file wins over an index, as in transformers.
    if (await exists(join(dir, container.single))) return readFiles(dir, container, null, files);
    const indexPath = join(dir, container.index);
    if (await exists(indexPath))
      return readFiles(dir, container, parseIndex(await readText(indexPath), indexPath, container.extension), files);
  }
  throw await noWeights(dir);
}

/** Finds the tensors of a LoRA adapter's folder, as PEFT names its files; otherwise like `locateTensors`. */
export async function locateAdapter(dir: string, files: RangeFile[]): Promise<Map<string, Located>> {
  const named = containers.map((container) => ({ ...container, single: `adapter_model.${container.extension}` }));
  for (const container of named)
    if (await exists(join(dir, container.single))) return readFiles(dir, container, null, files);
  throw inputError(`folder has no ${named.map(({ single }) => single).join(" and no ")}`, {
    where: dir,
    hint: "expected a LoRA adapter as PEFT saves it",
  });
}

async function readFiles(
  dir: string,
  container: Container,
  index: ReadonlyMap<string, string> | null,
  files: RangeFile[],
): Promise<Map<string, Located>> {
  const names = index === null ? [container.single] : [...new Set(index.values())].sort();
  const located = new Map<string, Located>();
  for (const name of names) {
    const path = join(dir, name);
    if (!(await exists(path))) {
      await requireNoDeadLink(path);
      throw inputError(`${name} is missing, ${container.index} lists it`, {
        where: dir,
        hint: "copy or download it again",
      });
    }
    const source = await openPooled(path);
    files.push(source);
    for (const [tensor, found] of await container.tensorsOf(source, name)) {
      if (index !== null && index.get(tensor) !== name) {
        const listed = index.get(tensor);
        throw inputError(
          `tensor ${tensor} is in this file, ${container.index} ` +
            `${listed === undefined ? "does not list it" : `says ${listed}`}`,
          { where: path },
        );
      }
      located.set(tensor, found);
    }
  }
  for (const [tensor, file] of index ?? []) {
    if (!located.has(tensor))
      throw inputError(`tensor ${tensor} is not in this file, ${container.index} says it is`, {
        where: join(dir, file),
      });
  }
  return located;
}

function noWeightsHere(path: string): UpcycleError {
  return inputError("this file has the header of the weights alone, not the weights", {
    where: path,
    hint: "name the model as hf://org/name, so that its weights are downloaded",
  });
}

/** The header of one open safetensors file. */
async function readHeader(file: RangeFile): Promise<Header> {
  const first = await file.read(0, Math.min(lengthBytes, file.size));
  const length = headerLength(first, file.size, file.path);
  return parseHeader(await file.read(lengthBytes, length), file.size, file.path);
}

async function noWeights(dir: string): Promise<UpcycleError> {
  const found = await withFsErrors(dir, "list folder", () => readdir(dir));
  for (const name of containers.flatMap(({ single, index }) => [single, index]))
    await requireNoDeadLink(join(dir, name));
  const shard = found
    .map((name) => /^(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)$/.exec(name))
    .find((match) => match !== null);
  if (shard != null) {
    const index = shard[2] === "bin" ? pickledIndexFileName : indexFileName;
    return inputError(`folder has ${shard[0]} but no ${index}`, { where: dir, hint: "copy or download it again" });
  }
  return inputError(`folder has no ${singleFileName}, no ${indexFileName} and no ${pickledFileName}`, { where: dir });
}
