/** What stands in every report: its script and the style sheet of the chart library, as the build has made them. */
import { fileURLToPath } from "node:url";
import { stopError } from "../base/errors.js";
import { readText } from "../files/io/ranges.js";
import type { ReportAssets } from "../report/page/shell.js";

/** Reads them. Throws stopError where the program was not built whole. */
export async function chartAssets(): Promise<ReportAssets> {
  const text = async (name: string): Promise<string> => {
    const path = fileURLToPath(new URL(`../../dist/studio/page/${name}`, import.meta.url));
    return readText(path).catch((cause: unknown) => {
      throw stopError("the script of reports is not there", { where: path, hint: "build it: npm run build", cause });
    });
  };
  const [script, style] = await Promise.all([text("report.js"), text("report.css")]);
  return { script, style };
}
