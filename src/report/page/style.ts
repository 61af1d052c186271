/** The style sheet that all pages share. */
import { baseRules } from "./style-base.js";
import { chartRules } from "./style-charts.js";
import { colourModes, swatchRules } from "./style-colours.js";
import { printRules } from "./style-print.js";
import { reportRules } from "./style-reports.js";
import { tableRules, tileRules } from "./style-tables.js";

/** Its rules, those of print last. */
export function pageStyle(): string {
  return [colourModes(), baseRules, swatchRules, tileRules, tableRules, chartRules, reportRules, printRules].join("\n");
}
