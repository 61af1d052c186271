/**
 * uPlot, which draws axes and reads the pointer, evaluated when a chart needs it: its module begins with formats of
 * numbers and dates, which cost a browser that has used none yet more than all else that the page does at its start.
 */
import { useLayoutEffect, useState } from "preact/hooks";
import type uPlot from "uplot";

let library: typeof uPlot | null = null;
let loading: Promise<void> | null = null;

/** Makes it ready. It lies in the page's own script, so nothing is asked for. */
export function loadPlots(): Promise<void> {
  loading ??= import("uplot").then((module) => {
    library = module.default;
  });
  return loading;
}

/** It, for a component that is drawn again when it is ready; null before. */
export function usePlots(): typeof uPlot | null {
  const [, setReady] = useState(library !== null);
  useLayoutEffect(() => {
    if (library === null) void loadPlots().then(() => setReady(true));
  }, []);
  return library;
}
