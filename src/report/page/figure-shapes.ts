/** Figures as data: shapes with colours and places, before they are drawn. */

type Point = readonly [x: number, y: number];

/** One shape; lengths are pixels from the upper left corner, colours `#rrggbb`. */
export type Shape =
  | {
      readonly kind: "band";
      readonly points: readonly Point[];
      readonly fill: string;
      readonly opacity: number;
    }
  | {
      readonly kind: "line";
      readonly points: readonly Point[];
      readonly stroke: string;
      readonly width: number;
      readonly dash: readonly number[];
      /** Cut off at the frame of the plot. */
      readonly clipped: boolean;
    }
  | {
      readonly kind: "text";
      readonly at: Point;
      readonly anchor: "start" | "middle" | "end";
      readonly text: string;
      readonly fill: string;
    };

/** A figure as shapes in the order in which they are drawn. */
export interface Figure {
  readonly title: string;
  readonly width: number;
  readonly height: number;
  /** The frame of the plot: left, top, right, bottom. */
  readonly frame: readonly [number, number, number, number];
  readonly shapes: readonly Shape[];
}

/** Size of all text in pixels. */
export const textSize = 13;
