/** What a file is that is no file of the expected kind, by its first bytes. Pure. */

/** A kind of file, and what to do about it. */
export interface ForeignFile {
  /** Such as "a Git LFS pointer, not the file itself". */
  readonly what: string;
  readonly hint: string;
}

/** Bytes that are enough to tell. */
export const tellingBytes = 512;

/** What a file with these first bytes is; null for one that is not known here. */
export function foreignFile(first: Uint8Array): ForeignFile | null {
  const text = new TextDecoder("latin1").decode(first.subarray(0, tellingBytes));
  if (/^version https:\/\/(git-lfs|hawser)\./.test(text))
    return { what: "a Git LFS pointer, not the file itself", hint: "run git lfs pull in the model's folder" };
  if (/^(\.\.\/)*(\.git)?\/annex\/objects\//.test(text))
    return { what: "a git-annex pointer, not the file itself", hint: "run git annex get in the model's folder" };
  if (/^\s*<(!doctype html|html|head|body|\?xml)/i.test(text))
    return { what: "a web page, not the file itself", hint: "download it again, by its address for downloading" };
  const refusal = /^(\{\s*"(error|message|detail)":|Entry not found|Repository not found|Access to model|Not Found)/i;
  if (refusal.test(text) || /^Invalid (username|credentials)/i.test(text))
    return {
      what: "a server's refusal, not the file itself",
      hint: "log in if the model asks for it, and download again",
    };
  if (text.startsWith("GGUF"))
    return {
      what: "a GGUF file of llama.cpp",
      hint: "use the safetensors folder that it was made from",
    };
  if (text.startsWith("PK\u0003\u0004"))
    return { what: "a zip archive, as torch.save writes it", hint: "name it pytorch_model.bin" };
  if (first[0] === 0x1f && first[1] === 0x8b) return { what: "compressed by gzip", hint: "unpack it with gunzip" };
  if (text.startsWith("\x89HDF"))
    return { what: "an HDF5 file of TensorFlow", hint: "save it with transformers as safetensors" };
  return null;
}

/** The same for a text that was read already. */
export function foreignText(text: string): ForeignFile | null {
  return foreignFile(new TextEncoder().encode(text.slice(0, tellingBytes)));
}
